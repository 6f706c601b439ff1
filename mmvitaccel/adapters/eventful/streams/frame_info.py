"""Report of a frame: tokens that passed its gates, and the position of its camera."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.stream import StreamState


class Camera(NamedTuple):
    """Position of the camera in one frame.

    Attributes:
        moved: Movement in pixels of the model's input (down, right) since the previous frame.
        offset: Top left corner (y, x) of the frame in the scene, in pixels; (0, 0) where the scene
            started.
        fits: Whether the frame shows the scene of the previous one; otherwise it was processed as
            from a camera at rest.
        beyond: Offset in pixels (down, right) of the frame from the model's output tokens; (0, 0)
            if these are on the frame.
    """

    moved: tuple[int, int]
    offset: tuple[int, int]
    fits: bool
    beyond: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class FrameInfo:
    """One frame of the last call.

    Attributes:
        stream: Name of the stream; None for a frame without a stream, which is computed densely.
        frame_id: Number of the frame, if given.
        first: Whether it is the first frame after a reset of the stream.
        num_tokens: Number N of tokens.
        passed: For each block, the number of tokens that passed its gates: three for a transformer
            (queries, keys and values; output projection; MLP), one for a neck.
        left_out_by_gate: For each block and gate, the squared error of the tokens that did not
            pass, relative to the squared norm of all tokens.
        computed: Share of the work that was done: tokens that passed the gates of a transformer,
            recomputed values of a neck or map head, recomputed proposals of an RoI head. 1 for all.
        refreshed: Whether it was refreshed, that is computed completely within the stream.
        camera: Position in its scene; None without motion.
    """

    stream: Hashable
    frame_id: int | None
    first: bool
    num_tokens: int
    passed: list[tuple[int, ...]]
    left_out_by_gate: list[tuple[float, ...]] = field(default_factory=list)
    computed: float = 1.0
    refreshed: bool = False
    camera: Camera | None = None

    @property
    def left_out(self) -> float:
        """Mean of ``left_out_by_gate``: 0 if all changes passed."""
        gates = [value for block in self.left_out_by_gate for value in block]
        return sum(gates) / len(gates) if gates else 0.0


@dataclass(frozen=True)
class Passed:
    """What passed the gates in one frame.

    Attributes:
        info: The frame; its ``passed`` is empty, for counting may wait for a device.
        blocks: The gates' selections of each block that remembers the stream.
        left_out: What these gates left out, () float32 each.
        owners: For each of these gates the token in which each of the frame's is, (B, N), where
            tokens merge.
        computed: Of a part without gates in every block, what was computed, () float32.
        order: Where tokens lie on a scene, the one nearest to each patch of the frame, (H * W,).
    """

    info: FrameInfo
    blocks: list[tuple[Selection, ...]]
    left_out: list[tuple[Tensor, ...]]
    computed: Tensor | None = None
    owners: list[tuple[Tensor | None, ...] | None] = field(default_factory=list)
    order: Tensor | None = None

    def counted(self) -> FrameInfo:
        """The frame with its counts."""
        counts = [tuple(sum(gate.counts) for gate in block) for block in self.blocks]
        gates = [gate for block in self.left_out for gate in block]
        values = iter(torch.stack(gates).tolist() if gates else ())
        shares = [tuple(next(values) for _ in block) for block in self.left_out]
        computed = self._computed([count for block in counts for count in block])
        return replace(self.info, passed=counts, left_out_by_gate=shares, computed=computed)

    def _computed(self, counts: list[int]) -> float:
        if self.computed is not None:
            return float(self.computed)
        at_most = sum(gate.num_tokens for block in self.blocks for gate in block)
        return sum(counts) / at_most if counts else 1.0

    def tokens(self) -> Tensor:
        """Which tokens passed, (blocks, gates, B, N) bool."""
        if not self.blocks:
            return torch.zeros(0, 3, 1, self.info.num_tokens, dtype=torch.bool)
        masks = [[gate.mask() for gate in block] for block in self.blocks]
        for own, owners in zip(masks, self.owners):
            for place, owner in enumerate(owners or ()):
                if owner is not None:  # a token passed if the one did in which it is
                    own[place] = own[place].gather(1, owner)
        passed = torch.stack([torch.stack(own) for own in masks])
        if self.order is None:
            return passed
        prefix = passed.shape[-1] - len(self.order)
        return torch.cat((passed[..., :prefix], passed[..., prefix + self.order]), -1)


def passed_in(frame: Frame, state: StreamState | None, num_tokens: int) -> Passed:
    """What passed the gates in a frame that is computed.

    Args:
        frame: The frame.
        state: What is remembered of its stream; None where it belongs to none.
        num_tokens: Its tokens.
    """
    if state is None:
        info = FrameInfo(frame.stream, frame.frame_id, True, num_tokens, [])
        return Passed(info, [], [])
    scene = state.scene
    camera = None
    if scene is not None:
        camera = Camera(scene.moved, scene.offset, scene.fits, scene.beyond)
    first, blocks = state.num_frames == 1, list(state.blocks.values())
    info = FrameInfo(
        frame.stream, frame.frame_id, first, num_tokens, [],
        refreshed=state.refreshed, camera=camera,
    )  # fmt: skip
    # The selections alone, so that a stream that is dropped frees its memory.
    gated = [block for block in blocks if block.passed]
    seen = [block.passed for block in gated]
    left_out = [block.left_out for block in gated]
    computed = getattr(blocks[0], "computed", None) if blocks else None
    merged = [getattr(block, "merged", None) for block in gated]
    owners = [None if each is None else each.owners() for each in merged]
    order = scene.order(seen[0][0].index.device) if scene is not None and seen else None
    return Passed(info, seen, left_out, computed, owners, order)
