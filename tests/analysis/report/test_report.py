"""The page of a run: what is in it, and that nothing in the folder becomes part of the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from mmvitaccel.analysis.report.page import page
from mmvitaccel.analysis.report.work_dir import read_run

VOID = {"meta", "img"}
EVIL = '<script>alert(1)</script>"><img src=http://example.com/a.png>&$x$'


class Reader(HTMLParser):
    """Tags that are balanced, addresses, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for n, v in attrs if n in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(folder):
    found = Reader((folder / "report.html").read_text())
    assert found.open == []
    assert all(a.startswith("data:image/") for a in found.addresses)
    return found


def test_a_training_and_its_test(run_tool, detector_config, tmp_path, capsys):
    run_tool("train", detector_config, "--work-dir", "w")
    with detector_config.open("a") as file:
        file.write(
            "test_evaluator = [val_evaluator, dict(type='mmvitaccel.MacsMetric')]\n"
            "custom_hooks = [dict(type='mmvitaccel.CostHook')]\n"
        )
    weights = "w/epoch_1.pth"
    run_tool("test", detector_config, weights, "--work-dir", "w", "--show-dir", "shown")
    run_tool("analysis/report", "w")
    assert capsys.readouterr().out.splitlines()[-1].startswith("w/report.html: ")
    found = read(tmp_path / "w")
    for said in (
        "Accuracy",
        "whole model",
        "backbone",
        "epoch_1.pth",
        "RetinaNet",
        "of 5 pictures",
    ):
        assert said in found.text
    assert "Not read" not in found.text and "script" not in found.tags
    kinds = [address.split(";")[0] for address in found.addresses]
    assert kinds.count("data:image/jpeg") == 5
    assert kinds.count("data:image/png") >= 3  # loss, learning rate, layers


@pytest.fixture
def odd(tmp_path):
    """A work directory of which everything is text that means something in HTML."""
    folder = tmp_path / "odd"
    (folder / "1" / "vis_data").mkdir(parents=True)
    (folder / "config.py").write_text(f"note = '''{EVIL}'''")
    figures = {EVIL: 0.5, "cost/gmacs": 2.0, "cost/tokens": {EVIL: 4}, "cost/layers": {EVIL: 1.0}}
    (folder / "1" / "1.json").write_text(json.dumps(figures))
    lines = [json.dumps({EVIL: v, "step": s}) for s, v in ((1, 2.0), (2, float("nan")), (3, 1.0))]
    (folder / "1" / "vis_data" / "scalars.json").write_text("\n".join([*lines, '{"half": ']))
    cv2.imwrite(str(folder / "1" / "a'b&c.png"), np.zeros((8, 8, 3), np.uint8))
    (folder / "1" / "broken.png").write_bytes(b"no picture")
    return folder


def test_everything_is_escaped(run_tool, odd):
    run_tool("analysis/report", odd)
    found = read(odd)
    assert "script" not in found.tags
    assert found.text.count(EVIL) >= 3  # config, accuracy, tokens
    assert "1/vis_data/scalars.json: 1 lines are not JSON" in found.text
    assert "No pictures: 1/broken.png." in found.text
    assert read_run(odd).curves[EVIL][0] == (1.0, 2.0)


def test_a_resumed_training_is_one_curve(tmp_path):
    for name, steps in (("20260101_000000", (1, 2, 3)), ("20260101_000100", (3, 4))):
        log = tmp_path / name / "vis_data" / "scalars.json"
        log.parent.mkdir(parents=True)
        lines = [json.dumps(dict(loss=10 - s, step=s, time=0.1, flag=True)) for s in steps]
        log.write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert run.curves == {"loss": [(1.0, 9.0), (2.0, 8.0), (3.0, 7.0), (4.0, 6.0)]}
    assert "<h2>Curves</h2>" in page(run) and "<h2>Cost</h2>" not in page(run)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "empty has no files of a run (config, log, picture or checkpoint)"),
        ("missing", "missing does not exist; give the work directory"),
        ("file", "file is a file; give the work directory"),
    ],
)
def test_nothing_to_report(run_tool, tmp_path, capsys, name, sentence):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as refused:
        run_tool("analysis/report", name)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))
