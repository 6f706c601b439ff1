"""Names of classes as mmdet's visualizer draws them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import font_manager
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from mmvitaccel.pictures import class_names
from mmvitaccel.pictures.class_names import LegibleNamesHook

CAT = "\u732b"


def drawn(visualizer) -> np.ndarray:
    """A picture with one box of each class."""
    count = len(visualizer.dataset_meta["classes"])
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[60.0 * i + 5, 40, 60.0 * i + 50, 90] for i in range(count)]),
        labels=torch.arange(count),
        scores=torch.ones(count),
    )
    image = np.zeros((120, 60 * count, 3), np.uint8)
    visualizer.add_datasample("a", image, sample, draw_gt=False)
    return visualizer.get_image()


def visualizer_of(*classes) -> DetLocalVisualizer:
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=classes, palette=[(255, 255, 255)] * len(classes))
    return visualizer


def serve(visualizer, hook=None) -> None:
    (hook or LegibleNamesHook()).before_test(SimpleNamespace(visualizer=visualizer))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(class_names, "print_log", lambda text, **kwargs: sentences.append(text))
    return sentences


def test_a_name_is_drawn_in_a_font_that_has_it(fonts, cat_font, monkeypatch, said, recwarn):
    fonts(cat_font)
    entries = [*font_manager.fontManager.ttflist]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    font_manager.fontManager.addfont(cat_font)
    visualizer = visualizer_of("dog", CAT)
    serve(visualizer)
    assert visualizer.dataset_meta["classes"] == ("dog", CAT)
    whole = drawn(visualizer)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert said == []
    plain = drawn(visualizer_of("dog", "dog"))
    assert np.array_equal(whole[:, :60], plain[:, :60])  # an ASCII name stays as it was
    assert not np.array_equal(whole[:, 60:], plain[:, 60:])


def test_without_a_font_the_number_is_drawn_and_it_is_said_once(fonts, said):
    fonts()
    visualizer, hook = visualizer_of("dog", CAT), LegibleNamesHook()
    for _ in range(3):
        serve(visualizer, hook)
    assert visualizer.dataset_meta["classes"] == ("dog", f"[1] {CAT}")
    (sentence,) = said
    assert sentence.startswith(f"No installed font has all characters of {CAT}: ")
    assert drawn(visualizer).any()


def test_ascii_names_and_no_names_are_left_alone(said):
    for classes in (("dog", "cat"), ()):
        visualizer = visualizer_of(*classes)
        serve(visualizer)
        assert visualizer.dataset_meta["classes"] == classes
        assert "draw_texts" not in visualizer.__dict__
    visualizer.dataset_meta = None
    serve(visualizer)
