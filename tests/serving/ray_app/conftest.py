"""Replicas in this process, as a gateway reaches them: streams move when their number changes."""

from __future__ import annotations

import asyncio

import pytest

from mmvitaccel.serving import StreamWorker
from mmvitaccel.serving.ray_app.gateway import Gateway, collect
from mmvitaccel.serving.ray_app.replica import Replica
from tests.serving.conftest import HeldModel


class LocalReplicas:
    """A stream goes to the replica that it is sent to; to the first by default."""

    def __init__(self):
        self.all, self.of, self.ended, self.hung = {}, {}, set(), set()

    def start(self, name, **options):
        model = HeldModel(prepare=as_tensor)
        self.all[name] = Replica(name, lambda: StreamWorker(model, **options))
        return model

    async def call(self, stream, method, *args):
        name = self.of.get(stream, next(iter(self.all)))
        if name in self.ended:
            raise ConnectionError("the actor died")
        found = asyncio.ensure_future(getattr(self.all[name], method)(*args))
        while not found.done():
            await asyncio.wait([found], timeout=0.01)
            if name in self.ended:
                raise ConnectionError("the actor died")
        return found.result()

    async def broadcast(self, seconds, method, *args):
        async def ask(name):
            if name in self.hung:
                await asyncio.Event().wait()
            return await getattr(self.all[name], method)(*args)

        alive = set(self.all) - self.ended
        return await collect([ask(name) for name in alive], alive, seconds)


def as_tensor(picture):
    import torch

    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 64 - 2


@pytest.fixture
def replicas():
    made = LocalReplicas()
    yield made
    for replica in made.all.values():
        replica.worker.close()


@pytest.fixture
def gateway(replicas):
    return Gateway(replicas, answer_seconds=30)


@pytest.fixture
def pictures():
    import numpy as np

    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8))
