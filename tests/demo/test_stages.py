"""Stages of a demonstration in the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mmvitaccel.demo.stages import Stages, clock


def test_stages_are_numbered_and_printed_as_they_are():
    file = io.StringIO()
    stages = Stages(Console(file=file, width=20), 2)
    stages.announce("Draw images in [folder], of 160 x 160 pixels")
    stages.announce("Train")
    expected = "\n[1/2] Draw images in [folder], of 160 x 160 pixels\n\n[2/2] Train\n"
    assert file.getvalue() == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00 min"), (59.9, "0:59 min"), (61, "1:01 min"), (754, "12:34 min")],
)
def test_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text
