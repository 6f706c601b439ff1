"""A model whose frames say how long they stay in it, and whose answers say where they were."""

from __future__ import annotations

import os
import time

from mmvitaccel import SharedTopK, apply_eventful
from mmvitaccel.testing.service import SHAPE, K, TellingModel, as_tensor, small_vitdet

SECONDS = 250  # a first pixel that bright in red stays in the model for its green in seconds


class FrailModel(TellingModel):
    """Adds its process to each output."""

    def prepare(self, frame):
        return super().prepare(frame)._replace(shape=(SHAPE, int(frame[0, 0, 0] >= SECONDS)))

    def run(self, batch):
        red, green = ((batch[0].data[:2, 0, 0] + 2) * 64).tolist()
        outs = super().run(batch)
        if red >= SECONDS:
            time.sleep(green)
        return [[*out, os.getpid()] for out in outs]


def make():
    model = small_vitdet()
    handle = apply_eventful(model, SharedTopK(K), max_streams=16)
    return FrailModel(model, SHAPE, handle, as_tensor)


def that_stays(picture, seconds):
    """The picture, which stays in the model for so long."""
    shown = picture.copy()
    shown[0, 0] = SECONDS, seconds, 0
    return shown
