"""The README's picture, drawn with a small model and a few frames."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvitaccel.pictures.gate_run import GateFrame

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "eventful_picture", ROOT / "docs" / "eventful_picture.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_and_printed_figures(script, tmp_path, capsys):
    out = tmp_path / "picture.png"
    script.main(["--frames", "4", "--out", str(out)])
    assert cv2.imread(str(out)).shape == (560, 960, 3)
    printed = capsys.readouterr().out
    dense, later, ratio = map(
        float, re.search(r"dense ([\d.]+) G.*eventful ([\d.]+) G.*\(([\d.]+)x", printed).groups()
    )
    # 0.2053 G by the page of the small set; 64 of 256 tokens save more than half of it
    assert dense == 0.21
    assert dense / (later + 0.005) <= ratio <= (dense + 0.005) / (later - 0.005)
    assert ratio > 2


def test_frames_follow_from_the_seed(script):
    first, again = script.generated_frames(64, 2), script.generated_frames(64, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(*first)


def test_only_tokens_that_passed_most_gates_are_marked(script):
    grey = np.full((4, 4, 3), 100, np.uint8)
    frame = GateFrame(grey, 0.0, False, (1.0, 1.0, 1.0), 2, np.array([[1.0, 0.5], [0.0, 0.6]]))
    marked = script._marked(frame)
    changed = (marked != 100).any(axis=2)
    assert changed.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, True],
        [False, False, True, True],
    ]
    assert marked[0, 0, 0] > 100 > marked[0, 0, 2]  # red, as RGB
