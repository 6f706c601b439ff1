"""A head over maps that computes only the pixels whose surroundings changed.

The steps of the head's record run in place of its forward. A frame begins when its levels reach the
head.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.around import follow_models_around
from mmvitaccel.adapters.eventful.handle import StreamHandle, checked_policy
from mmvitaccel.adapters.eventful.pages import memory_of, pages_of, sheets_of
from mmvitaccel.adapters.eventful.stream_run import (
    StreamRun,
    attach_part,
    called,
    in_turn,
)
from mmvitaccel.adapters.parts import HeadAdapter
from mmvitaccel.core.eventful.gates.policy import Policy, Threshold
from mmvitaccel.core.eventful.maps.memory import cells_of
from mmvitaccel.core.eventful.stream import StreamStore

METHOD = "EventfulHead"


@dataclass
class HeadState(StreamRun):
    """What the head and its handle share.

    Attributes:
        buffer_dtype: In which the maps between its convolutions are kept; None as they are.
    """

    buffer_dtype: torch.dtype | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> HeadState:
        # reason: a copied model starts without streams.
        store = copy.deepcopy(self.store)
        return HeadState(self.policy, store, buffer_dtype=self.buffer_dtype)


class EventfulHeadHandle(StreamHandle):
    """Steers the eventful head over maps of one detector.

    Of :attr:`frames`, ``num_tokens`` are the pixels of all levels, and ``passed`` holds the number
    of those that the head's own gates let through; it is empty where it follows a neck.
    """

    method = METHOD
    puts_on = "apply_eventful"


def attach_head(
    head: nn.Module,
    adapter: HeadAdapter,
    policy: Policy | None = None,
    max_streams: int = 4,
    buffer_dtype: torch.dtype | None = None,
) -> EventfulHeadHandle:
    """Make a head over maps eventful by its record.

    Behind a neck that lends its levels, the head follows the neck: pixels within reach of a pixel
    that is new are computed, all others keep their value bit by bit. Otherwise gates of its own
    look at each level.

    Args:
        head: The head.
        adapter: Its record.
        policy: Of its own gates; by default every pixel that differs at all passes.
        max_streams: Most streams remembered at a time.
        buffer_dtype: In which the maps between its convolutions are kept; None: as they are
            computed. What the head puts out stays as it is.
    """
    policy = checked_policy(Threshold(0.0) if policy is None else policy)
    state = HeadState(policy, StreamStore(max_streams), buffer_dtype=buffer_dtype)
    overrides = {"forward": _forward, "__call__": called}
    attach_part(head, METHOD, overrides, state, adapter.bypassed(head), adapter)
    follow_models_around(head)
    return EventfulHeadHandle(head)


def _forward(head: nn.Module, host: Any, x: Sequence[Tensor]) -> Any:
    """The override of the head's forward: frames of one stream go one after the other."""
    state: HeadState = link(head).state
    if any(module.training for module in head.modules()):
        return host(x)
    size, run = len(x[0]), functools.partial(state.run_pass, None)
    if state.go_in_turn(size):
        return in_turn(lambda x: run(lambda: _kept(_outputs(head, state, x))), size, 0, (x,), {})
    return run(lambda: _outputs(head, state, x))


@torch.no_grad()
def _outputs(
    head: nn.Module, state: HeadState, levels: Sequence[Tensor]
) -> tuple[list[Tensor], ...]:
    """What the head says of a batch of frames, each with its stream's memory."""
    pages, others = pages_of(levels), levels[1:]
    shapes = (x.shape[1:] for x in others)
    state.begin(head, levels[0], *shapes, others=others if pages is None else None)
    state.decide(cells_of(levels[0]))
    running = state.running
    make, made = link(head).info.adapter.outputs(head), []
    for entry, share in enumerate(zip(*(running.parts(x) for x in levels))):
        stream = share[0][0]
        memory, page = memory_of(stream), None if pages is None else pages[entry]
        policy = running.policy_of(stream)
        sheets = sheets_of(memory, page, [x for _, x in share], policy, 1)
        memory.sheets.between = state.buffer_dtype
        made.append(make(memory.sheets, sheets))
        if stream is not None:
            stream.busy = False
    state.end(sum(x.shape[2] * x.shape[3] for x in levels))
    return made[0] if len(made) == 1 else _batched(made)


def _kept(outs: tuple[list[Tensor], ...]) -> tuple[list[Tensor], ...]:
    """Copies of the outputs of a frame, which are the memory that the next one changes."""
    return tuple([x.clone() for x in kind] for kind in outs)


def _batched(made: list[tuple[list[Tensor], ...]]) -> tuple[list[Tensor], ...]:
    """The outputs of single frames as those of the batch."""
    return tuple([torch.cat(maps) for maps in zip(*kind)] for kind in zip(*made))
