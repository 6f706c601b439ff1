"""Which later frames of a stream are computed whole, beside those that begin a scene.

Gates let a budget of tokens through. After a hard cut all tokens are wrong, and remain so for as
many frames as it takes to pass them all. A refresh computes such a frame whole, on the stream's own
memory. It is decided when the tokens reach the first gate, before the frame's work is done.

What is set holds options alone; what is remembered of a stream is its :class:`WholeFrames`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.host_reads import Alarms

# Strips of consecutive tokens in which two frames are compared. Of a square picture each is a
# quarter of its height, far more than a camera moves between two frames.
STRIPS = 4


@dataclass
class WholeFrames:
    """What a stream remembers for its refreshes.

    Attributes:
        since_whole: Frames since the last one that was computed whole.
        since_refresh: Frames since the last refresh; None where there was none.
        requested: Whether the next frame is to be computed whole.
        picture: (B, strips, 2 * C) what the last frame looked like; None before the first one.
        changed: Raised when a frame differed too much from the one before.
    """

    since_whole: int = 0
    since_refresh: int | None = None
    requested: bool = False
    picture: Tensor | None = None
    changed: Alarms = field(default_factory=Alarms)

    def begin(self, refresh: Refresh, first: bool, told: bool, x: Tensor, spacing: int) -> bool:
        """Decide on a frame whose tokens reach the first gate.

        Args:
            refresh: Says which frames are computed whole.
            first: Whether the stream starts clean with it.
            told: Whether an earlier part of the model computes it whole.
            x: Its tokens on the grid, (B, N, C).
            spacing: Frames in which the policy lets every token pass once, ceil(N / k).

        Returns:
            Whether it is refreshed; a first frame is whole without that.
        """
        self.since_whole += 1
        if self.since_refresh is not None:
            self.since_refresh += 1
        due = refresh.due(self, x, spacing)  # asked in every frame, for it may remember them
        refreshed = not first and (due or told or self.requested)
        self.requested = False
        if first or refreshed:
            self.since_whole = 0
        if refreshed:
            self.since_refresh = 0
        return refreshed


class Refresh(Protocol):
    """Says which frames are computed whole."""

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """Decide on a frame, see :meth:`WholeFrames.begin`. It must not wait for a device.

        Args:
            memory: Of the stream.
            x: (B, N, C) tokens of the frame.
            spacing: Frames in which the policy lets every token pass once.
        """


@dataclass(frozen=True)
class OnRequest:
    """Only frames for which the caller asks, by ``handle.refresh``, as every choice allows."""

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        return False


@dataclass(frozen=True)
class Every:
    """A frame in every so many, counted from the last whole one.

    Attributes:
        frames: At least 1, which is the dense model.

    Raises:
        ValueError: It is no whole number or below 1.
    """

    frames: int

    def __post_init__(self) -> None:
        if isinstance(self.frames, bool) or int(self.frames) != self.frames or self.frames < 1:
            raise ValueError(
                f"Every: frames={self.frames!r} must be a whole number of frames, at least 1."
            )

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        return memory.since_whole >= self.frames


@dataclass(frozen=True)
class OnChange:
    """A frame that differs from the one before as pictures of different scenes do.

    Both are compared strip by strip, as :func:`picture_of` says, in one look at the tokens. After a
    refresh there is none for as many frames as the policy takes to let every token pass once. On a
    CPU the frame itself is computed whole. Elsewhere what the device finds is not waited for: the
    first frame that begins after it is known is computed whole, usually the one after. There, give
    a frame of which the caller knows it as ``cut``.

    Attributes:
        above: The change, 0 for a still picture. By measurement on trained and random weights
            (``benchmarks/scene_cuts.py``) motion, pans, noise and flicker are below the default
            and nearly all cuts above it.

    Raises:
        ValueError: It is not above 0.
    """

    above: float = 0.1

    def __post_init__(self) -> None:
        if not self.above > 0:
            raise ValueError(f"OnChange: above={self.above!r} must be a number above 0.")

    def due(self, memory: WholeFrames, x: Tensor, spacing: int) -> bool:
        """See :class:`Refresh`."""
        before, memory.picture = memory.picture, picture_of(x)
        if before is not None:
            # reason: asked this way round, a frame that is not finite is no other scene
            memory.changed.watch(change_of(memory.picture, before) > self.above)
        if memory.since_refresh is not None and memory.since_refresh < spacing:
            memory.changed.clear()
        if not memory.changed.raised:
            return False
        memory.changed.clear()
        return True


def picture_of(x: Tensor) -> Tensor:
    """What a frame looks like: where its tokens lie, and how they vary, in strips of the picture.

    For each strip of consecutive tokens the mean, less that of all tokens, and the root mean square
    of the difference to that, both over the norm of the latter of all tokens. A movement changes
    little of it, and a change of brightness or contrast nothing.

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
    """How far two pictures (B, strips, 2 * C) differ: mean squared distance, () float32."""
    return (picture - before).square().sum(2).mean()
