"""Steps that choose the frames of a clip: numbers with which one frame is taken again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmvitaccel.fit.settings.numbers import check_whole
from mmvitaccel.registry import type_name

_CHOOSES = (
    *("SampleFrames", "DenseSampleFrames", "UntrimmedSampleFrames", "SampleAVAFrames"),
    *("UniformSample", "UniformSampleFrames"),
)
_NUMBERS = ("clip_len", "frame_interval", "num_clips")


def check_clips(where: str, dataset: Mapping[str, Any]) -> None:
    """Refuse lengths, intervals and numbers of clips below 1 in mmaction2's steps.

    Args:
        where: Dotted key of the data set.
        dataset: Its config.

    Raises:
        UserError: There is one.
    """
    for index, step in enumerate(dataset.get("pipeline") or ()):
        if isinstance(step, Mapping) and type_name(step) in _CHOOSES:
            for key in _NUMBERS:
                check_whole(step, f"{where}.pipeline.{index}", key, 1)
