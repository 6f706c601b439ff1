"""Real videos, where there are some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_video() -> Path:
    """An h264 file of 300 frames at 340 x 256; the test is skipped where it is not."""
    root = os.environ.get("MMVITACCEL_TEST_DATA", str(Path(__file__).parents[2] / "data"))
    path = Path(root, "videos", "pool_340x256.mp4")
    if not path.is_file():
        pytest.skip(f"{path} is not there; set MMVITACCEL_TEST_DATA to the folder of videos/")
    return path
