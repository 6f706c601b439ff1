"""Strips of tested clips: their frames, and what is written above them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmvitaccel.hooks import clip_visualization_hook
from mmvitaccel.hooks.clip_visualization_hook import ClipVisualizationHook, draw_strip


def sample(scores: object, truth: list[int]) -> BaseDataElement:
    return BaseDataElement(pred_score=scores, gt_label=torch.tensor(truth))


def test_strip_is_the_frames_in_order():
    clip = torch.arange(16.0)[None, None, :, None, None].expand(2, 3, 16, 4, 6) * 10
    strip = draw_strip(clip, "a")
    assert strip.shape == (18 + 4, 8 * 6, 3)
    assert strip[18, ::6, 0].tolist() == [0, 20, 40, 60, 90, 110, 130, 150]
    assert strip[:18].max() == 255


@pytest.mark.parametrize(
    ("scores", "truth", "caption"),
    [
        (torch.tensor([0.25, 0.75]), [0], "up 0.75 (true: left)"),
        (dict(verb=torch.tensor([0.5, 0.3]), noun=torch.tensor([0.1, 0.8])), [1, 1], None),
    ],
)
def test_captions_of_one_classifier_and_of_two(tmp_path, monkeypatch, scores, truth, caption):
    seen = []
    monkeypatch.setattr(
        clip_visualization_hook,
        "draw_strip",
        lambda c, text: (seen.append(text), draw_strip(c, text))[1],
    )
    visualizer = SimpleNamespace(dataset_meta={"classes": ["left", "up"]})
    runner = SimpleNamespace(visualizer=visualizer, rank=0, log_dir=str(tmp_path))
    hook = ClipVisualizationHook(out_dir="strips")
    hook.before_test(runner)
    batch = dict(inputs=[torch.zeros(1, 3, 2, 8, 8)])
    hook.after_test_iter(runner, 0, batch, [sample(scores, truth)])
    assert seen == [caption or "0, 1 0.40 (true: 1, 1)"]
    written = cv2.imread(str(tmp_path / "strips/0_000000.png"))
    assert np.array_equal(written, draw_strip(batch["inputs"][0], seen[0]))


def test_features_are_no_clip():
    with pytest.raises(ValueError, match=r"shape \(12, 16, 768\), which is not a clip; use"):
        draw_strip(torch.zeros(12, 16, 768), "a")
