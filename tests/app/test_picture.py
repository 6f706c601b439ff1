"""The picture in the page's documentation, of a small model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "app_picture.py"
pytestmark = [pytest.mark.extras("app", "gradio"), pytest.mark.extras("browser", "playwright")]


def test_picture_of_the_page(model, clips, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("app_picture", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if not script.CHROMIUM.is_file():
        pytest.skip(f"{script.CHROMIUM} is not there")
    monkeypatch.setattr(script, "own_model", lambda: ({"tiny": model}, "hello"))
    monkeypatch.setattr(script, "draw_clips", lambda folder: clips)
    monkeypatch.setattr(script, "SLIDE", {0: 80, 2: 60})
    monkeypatch.setattr(script, "LAST", 5)
    script.main(["--out", str(tmp_path / "page.jpg")])
    assert "wrote" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "page.jpg")).shape == (960, 1280, 3)
