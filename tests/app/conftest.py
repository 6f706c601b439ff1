"""A small detector, clips, and the page's server on this machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmvitaccel.app.page import Page
from mmvitaccel.app.player import Player
from mmvitaccel.app.server import application, listen, served
from mmvitaccel.app.session import Sessions
from mmvitaccel.video_demo import VideoDemo
from mmvitaccel.video_reader import VideoWriter
from tests.tiny_detector import HOOK, on_videos, write_weights

MOST_BYTES = 200_000


def write_clip(path: Path, frames: int, seed: int, size: tuple[int, int] = (40, 56)) -> Path:
    """A clip of a square that moves over noise."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 180, (*size, 3), dtype=np.uint8)
    with VideoWriter(path, 10) as writer:
        for number in range(frames):
            image, left = ground.copy(), (4 * number) % (size[1] - 12)
            image[10:22, left : left + 12] = rng.integers(0, 255, 3, dtype=np.uint8)
            writer.add(image)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def model(folder) -> VideoDemo:
    """A detector of 20 000 parameters that finds much."""
    (folder / "config.py").write_text(on_videos(folder) + HOOK)
    write_weights(folder / "config.py", folder / "weights.pth")
    return VideoDemo(folder / "config.py", folder / "weights.pth")


@pytest.fixture(scope="module")
def clips(folder) -> dict[str, Path]:
    lengths = {"first": 200, "second": 12}
    return {
        name: write_clip(folder / f"{name}.mp4", length, seed)
        for seed, (name, length) in enumerate(lengths.items())
    }


@pytest.fixture(scope="module")
def page(model, clips, folder) -> Page:
    return Page(Player({"tiny": model}), Sessions(folder / "sessions"), clips, "hello")


@pytest.fixture(scope="module")
def server(page, folder):
    """The page's server; its address, the page and where its clips are stored."""
    app = application(page, folder, MOST_BYTES)
    with listen("127.0.0.1", 0) as listening, served(app, listening) as address:
        yield SimpleNamespace(address=address, page=page, folder=folder)
