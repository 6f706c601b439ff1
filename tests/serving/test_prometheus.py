"""The report as Prometheus reads it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mmvitaccel.serving.answers import REASONS
from mmvitaccel.serving.prometheus import exposition
from mmvitaccel.serving.report import WorkerReport
from mmvitaccel.serving.stream import StreamCounts

SAMPLE = re.compile(r'mmvitaccel_\w+(\{(\w+="[\w.-]+",?)*\})? [0-9.e+-]+')


def report():
    counts = StreamCounts(frames=1_234_567, whole=12, dropped=3, cancelled=1, failed=2, refused=5)
    times = {50: 20.0, 90: 31.25, 99: 40.12345}
    return WorkerReport(counts, {**dict.fromkeys(REASONS, 0), "order": 5}, 4, 9, 8, 10**9, 2, times)


def test_every_line_is_a_sample_or_about_one():
    lines = exposition({"r-1": report()}, [], {}).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples)
    names = {re.match(r"\w+", line)[0] for line in samples}
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == names
    values = dict(line.rsplit(" ", 1) for line in samples)
    label = '{replica="r-1"}'
    assert values["mmvitaccel_frames_total" + label] == "1234567"  # to the last digit
    assert values["mmvitaccel_dense_frames_total" + label] == "12"
    assert values["mmvitaccel_dropped_frames_total" + label] == "3"
    assert values["mmvitaccel_state_bytes" + label] == "1000000000"
    assert values["mmvitaccel_budget_missed" + label] == "0"
    assert values['mmvitaccel_refused_total{replica="r-1",reason="order"}'] == "5"
    assert values['mmvitaccel_frame_milliseconds{replica="r-1",quantile="0.9"}'] == "31.25"
    assert values['mmvitaccel_frame_milliseconds{replica="r-1",quantile="0.99"}'] == "40.123"


def test_every_worker_is_told_apart_and_each_metric_is_introduced_once():
    text = exposition({"a": report(), "b": report()}, ["c"], {"lost_frames": 3})
    assert 'mmvitaccel_streams{replica="a"} 9\nmmvitaccel_streams{replica="b"} 9\n' in text
    assert re.findall(r'^mmvitaccel_up{replica="(.)"} (.)$', text, re.M) == [*zip("abc", "110")]
    assert text.endswith("counter\nmmvitaccel_lost_frames_total 3\n")
    introduced = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(introduced) == len(set(introduced)) == 15


def test_a_budget_that_cannot_be_held():
    text = exposition({"a": report(), "b": replace(report(), missed="it cannot be held")}, [], {})
    found = re.findall(r'^mmvitaccel_budget_missed{replica="(.)"} (.)$', text, re.M)
    assert found == [("a", "0"), ("b", "1")]


@pytest.mark.extras("serve", "ray")
def test_prometheus_own_parser_reads_it():
    from prometheus_client.parser import text_string_to_metric_families

    text = exposition({"a": report(), "b": report()}, ["c"], {"lost_frames": 3})
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert found["mmvitaccel_frames"].type == "counter"
    times = [sample.labels for sample in found["mmvitaccel_frame_milliseconds"].samples]
    quantiles = {labels["quantile"] for labels in times if labels["replica"] == "b"}
    assert quantiles == {"0.5", "0.9", "0.99"}
    assert [sample.value for sample in found["mmvitaccel_up"].samples] == [1, 1, 0]
    assert all(family.type in ("counter", "gauge") for family in found.values())
