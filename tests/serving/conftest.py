"""A small model in service, held back so that frames pile up, and streams for it."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from mmvitaccel import SharedTopK, apply_eventful
from mmvitaccel.serving import StreamWorker, TensorModel
from mmvitaccel.testing.service import SHAPE, small_vitdet


def video(seed, count):
    """Frames of which a corner is another one each time; of seed 0 nothing moves."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randn(SHAPE, generator=generator)
    for _ in range(count):
        yield frame
        frame = frame.clone()
        if seed:
            frame[:, : 8 * seed, :16] = torch.randn(frame[:, : 8 * seed, :16].shape)


class HeldModel(TensorModel):
    """Computes when it is let to, and notes what it computed together and which tokens passed."""

    def __init__(self, k=5, floor=0, max_streams=8, policy=None, **kwargs):
        model = small_vitdet()
        policy = SharedTopK(k, floor) if policy is None else policy
        handle = apply_eventful(model, policy, max_streams=max_streams)
        super().__init__(model, SHAPE, handle, **kwargs)
        self.let, self.busy = threading.Event(), threading.Event()
        self.let.set()
        self.batches, self.passed = [], {}
        self.poison = None

    def run(self, batch):
        self.busy.set()
        assert self.let.wait(30)
        if any(torch.equal(p.data, self.poison) for p in batch if self.poison is not None):
            raise RuntimeError("no such luck")
        out = super().run(batch)
        frames = self.handle.uncounted_frames
        self.batches.append([(frame.stream, frame.frame_id) for frame in frames])
        for frame, tokens in zip(frames, self.handle.passed_tokens()):
            self.passed[frame.stream, frame.frame_id] = tokens
        return out

    def hold(self):
        self.busy.clear()
        self.let.clear()


def held_up(worker, model, first):
    """Let ``first()`` bring a frame that is in the model from now on, until it is let go."""
    model.hold()
    answer = first()
    assert model.busy.wait(30)
    return answer


@pytest.fixture
def serve():
    """``serve(model, **options)`` starts a worker that ends with the test."""
    workers = []

    def start(model=None, *args, **options):
        workers.append(StreamWorker(HeldModel() if model is None else model, *args, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def encoded(picture, kind="PNG"):
    """A file of a picture (H, W, 3) uint8."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


def bomb(width, height):
    """A PNG of some hundred bytes that says it has that size."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
