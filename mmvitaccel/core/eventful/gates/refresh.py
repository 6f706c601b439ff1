"""Refreshes: later frames of a stream that are computed completely.

After a hard cut all tokens are outdated, and it takes several frames until all have passed the
gates. A refresh computes such a frame completely and updates the stream's state. It is decided when
the tokens reach the first gate.

A refresh has only options; the state of a stream is its :class:`WholeFrames`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mmvitaccel.arguments import number, whole_number
from mmvitaccel.core.eventful.gates.host_reads import Alarms

# Number of strips of consecutive tokens for comparing frames. In a square picture, each is a
# quarter of its height, far more than a camera moves between two frames.
STRIPS = 4


@dataclass
class WholeFrames:
    """State of a stream for its refreshes.

    Attributes:
        since_whole: Frames since the last completely computed frame.
        since_refresh: Frames since the last refresh; None before the first.
        requested: Whether a refresh of the next frame is requested.
        picture: (B, strips, 2 * C) description of the last frame; None before the first.
        changed: Alarm for frames that differ too much from the previous one.
    """

    since_whole: int = 0
    since_refresh: int | None = None
    requested: bool = False
    picture: Tensor | None = None
    changed: Alarms = field(default_factory=Alarms)

    def begin(self, refresh: Refresh, first: bool, told: bool, x: Tensor, spacing: int) -> bool:
        """Decide whether to refresh a frame whose tokens reach the first gate.

        Args:
            refresh: The refresh rule.
            first: Whether it is the first frame of the stream.
            told: Whether an earlier part of the model refreshes this frame.
            x: Tokens of the grid, (B, N, C).
            spacing: Number of frames until every token can have passed, ceil(N / k).

        Returns:
            Whether the frame is refreshed; False for first frames, which are complete anyway.
        """
        self.since_whole += 1
        if self.since_refresh is not None:
            self.since_refresh += 1
        due = refresh.due(
            self, x, spacing
        )  # called in every frame, because the rule may have state
        refreshed = not first and (due or told or self.requested)
        self.requested = False
        if first or refreshed:
            self.since_whole = 0
        if refreshed:
            self.since_refresh = 0
        return refreshed


class Refresh(Protocol):
    """Protocol: decides which frames are computed completely."""

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """Decide on a frame, see :meth:`WholeFrames.begin`. Must not synchronise with a device.

        Args:
            memory: State of the stream.
            x: Tokens (B, N, C) of the frame.
            spacing: Number of frames until every token can have passed.
        """


@dataclass(frozen=True)
class OnRequest:
    """Refreshes only frames requested by ``handle.refresh``, which works with every rule."""

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        return False


@dataclass(frozen=True)
class Every:
    """Refreshes one in ``frames`` frames, counted from the last completely computed one.

    Attributes:
        frames: Number of frames, at least 1; 1 is the dense model.

    Raises:
        ValueError: ``frames`` is not a whole number or below 1.
    """

    frames: int

    def __post_init__(self) -> None:
        frames = whole_number("Every", "frames", self.frames, least=1, of="frames")
        object.__setattr__(self, "frames", frames)

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        return memory.since_whole >= self.frames


@dataclass(frozen=True)
class OnChange:
    """Refreshes frames that differ from the previous one like pictures of different scenes.

    The frames are compared strip by strip, see :func:`picture_of`. After a refresh, there is no
    other one until every token can have passed. On a CPU, the changed frame itself is refreshed. On
    other devices, the result arrives asynchronously, and a later frame is refreshed, usually the
    next one; if the caller knows of a cut, use ``cut`` there.

    Attributes:
        above: Threshold of the change, which is 0 for a still picture. With trained and random
            weights (``benchmarks/scene_cuts.py``), motion, pans, noise and flicker are below the
            default and nearly all cuts above it.

    Raises:
        ValueError: ``above`` is not above 0.
    """

    above: float = 0.1

    def __post_init__(self) -> None:
        above = number("OnChange", "above", self.above, above=0, or_infinite=True)
        object.__setattr__(self, "above", above)

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        before, memory.picture = memory.picture, picture_of(x)
        if before is not None:
            # With this comparison, a non-finite frame does not count as another scene
            memory.changed.watch(change_of(memory.picture, before) > self.above)
        if memory.since_refresh is not None and memory.since_refresh < spacing:
            memory.changed.clear()
        if not memory.changed.raised:
            return False
        memory.changed.clear()
        return True


def picture_of(x: Tensor) -> Tensor:
    """Describe a frame by the mean and spread of its tokens in strips of the picture.

    For each strip of consecutive tokens: the mean minus the mean of all tokens, and the root mean
    square of the deviations, both relative to the norm of the deviations of all tokens. Movements
    change this description only slightly, brightness and contrast not at all.

    Args:
        x: (B, N, C).

    Returns:
        (B, strips, 2 * C) float32.
    """
    x = x.float()
    x = x - x.mean(1, keepdim=True)
    parts = x.tensor_split(min(STRIPS, x.shape[1]), dim=1)
    mean = torch.stack([part.mean(1) for part in parts], 1)
    spread = torch.stack([part.square().mean(1).sqrt() for part in parts], 1)
    size = x.square().mean(1).sum(1).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.cat((mean, spread), 2) / size[:, None, None]


def change_of(picture: Tensor, before: Tensor) -> Tensor:
    """Mean squared distance of two descriptions (B, strips, 2 * C), () float32."""
    return (picture - before).square().sum(2).mean()
