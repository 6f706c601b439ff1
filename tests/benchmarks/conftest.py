"""Scripts of the folder of benchmarks as modules, and records that go elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.records import record
from mmvitaccel.testing.models import vitdet


@pytest.fixture
def load_benchmark(monkeypatch):
    """``load_benchmark('tome')`` is the module ``benchmarks/tome.py``."""

    def load(name):
        path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
        monkeypatch.syspath_prepend(path.parent)  # as for a script
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up while it is being run
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """``recorded(name)`` reads a record that a benchmark has written into a folder of the test."""
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "git_state", lambda: ("0123456789abcdef", False))
    monkeypatch.setattr("mmvitaccel.records.recording.git_state", record.git_state)
    return lambda name: record.read_record(record.path_of(name))


@pytest.fixture
def small_vitdet():
    """Builds a small model in place of ViTDet-B."""
    small = dict(
        embed_dim=32, depth=2, num_heads=2, window_size=2, window_block_indexes=(0,), patch_size=32
    )
    return partial(vitdet, **small)


@pytest.fixture
def noise_video(tmp_path):
    """Ten frames of noise, 64 x 48 pixels."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(10):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="session")
def moving_clip(tmp_path_factory) -> Callable[[int, tuple[int, int]], str]:
    """``moving_clip(frames, (height, width))`` writes an mp4 in which a shape moves up."""

    def write(frames, size):
        path = tmp_path_factory.mktemp("clip") / "clip.mp4"
        write_clip(
            path, draw_clip(MotionSetSettings(num_frames=frames, img_size=size), "up", "val", 0)
        )
        return str(path)

    return write
