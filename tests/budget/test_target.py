"""Targets: one of four kinds, from keywords and from text."""

from __future__ import annotations

import re

import pytest

from mmvitaccel.budget.target import Target


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("200ms", "milliseconds", 200.0),
        (" 33.5 ms ", "milliseconds", 33.5),
        ("2fps", "fps", 2.0),
        ("40%", "share", 0.4),
        ("90G", "macs", 90e9),
        (".5T", "macs", 0.5e12),
        ("750M", "macs", 750e6),
    ],
)
def test_parse(text, kind, value):
    target = Target.parse(text)
    assert target.kind == kind and target.value == pytest.approx(value)
    assert Target.of(**{kind: value}).timed == (kind in ("milliseconds", "fps"))


@pytest.mark.parametrize("text", ["", "200", "200s", "ms", "-3ms", "1e3ms", "40 %%", "nan ms"])
def test_text_that_is_no_budget(text):
    with pytest.raises(
        ValueError, match=re.escape(f"{text!r} is not a valid budget; give 200ms, 2fps")
    ):
        Target.parse(text)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "200", True])
def test_value_without_a_meaning(value):
    with pytest.raises(ValueError, match=re.escape(f"milliseconds={value!r} must be a number")):
        Target.of(milliseconds=value)


def test_share_above_one():
    with pytest.raises(ValueError, match=r"share=40 must be at most 1.* write 0\.4 for 40 %"):
        Target.of(share=40)


def test_exactly_one():
    with pytest.raises(ValueError, match="none given, but exactly one target is needed"):
        Target.of(milliseconds=None)
    with pytest.raises(ValueError, match="milliseconds=20 and fps=3 given"):
        Target.of(milliseconds=20, fps=3)
    with pytest.raises(TypeError, match="'seconds' is not a target; give one of milliseconds"):
        Target.of(seconds=1)


def test_words():
    words = [str(Target.parse(text)) for text in ("200ms", "2fps", "40%", "90G")]
    assert words == [
        "200 ms a frame",
        "2 frames a second",
        "40 % of the dense model's multiply-adds",
        "90 G multiply-adds a frame",
    ]
    assert Target.parse("4fps").milliseconds == 250
    assert [Target.parse(text).short for text in ("200ms", "2.5fps", "40%", "90G")] == [
        "200ms",
        "2.5fps",
        "40%",
        "90G",
    ]
