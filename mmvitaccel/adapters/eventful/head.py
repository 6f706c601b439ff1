"""An eventful head over maps, which recomputes only pixels whose neighbourhood changed.

The steps of the head's record run in place of its forward. A frame begins when its levels reach the
head.

On a scene, the levels and what the head says of them are those of a view. What boxes are decoded
from, anchors or points, is then put where it lies on each image's frame: decoded, boxes lie there
too, and are clipped to it.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.handle import StreamHandle, checked_policy
from mmvitaccel.adapters.eventful.pages import memory_of, pages_of, sheets_of
from mmvitaccel.adapters.eventful.streams.around import follow_models_around
from mmvitaccel.adapters.eventful.streams.attachment import attach_part, called
from mmvitaccel.adapters.eventful.streams.in_turn import in_turn
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.adapters.parts import HeadAdapter
from mmvitaccel.core.eventful.gates.policy import Policy, Threshold
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.maps.memory import cells_of
from mmvitaccel.core.eventful.store import StreamStore

METHOD = "EventfulHead"


class _Decoding(threading.local):
    """What boxes a thread decodes.

    Attributes:
        beyond: For each image that is left, pixels (down, right) by which its frame lies further
            than the levels' picture.
    """

    beyond: Iterator[tuple[int, int]] | None = None


@dataclass
class HeadState(StreamRun):
    """State shared by the head and its handle.

    Attributes:
        buffer_dtype: In which the maps between its convolutions are kept; None as they are.
        on_scene: Whether its levels are those of views over scenes.
        beyond: For each image of outputs that are still in use, pixels (down, right) by which its
            frame lies further than the levels' picture; by the first of the outputs.
        decoding: What boxes a thread decodes now.
    """

    buffer_dtype: torch.dtype | None = None
    on_scene: bool = False
    beyond: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    decoding: _Decoding = field(default_factory=_Decoding)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeadState:
        # A copied model starts without streams.
        store = copy.deepcopy(self.store)
        return HeadState(
            self.policy, store, refresh=self.refresh, buffer_dtype=self.buffer_dtype,
            on_scene=self.on_scene,
        )  # fmt: skip


class EventfulHeadHandle(StreamHandle):
    """Controls the eventful map head of one detector.

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
    on_scene: bool = False,
    refresh: Refresh = OnRequest(),  # noqa: B008
) -> EventfulHeadHandle:
    """Make a map head eventful by its record.

    After an eventful neck, the head uses the neck's changed pixels: pixels in their receptive field
    are recomputed, all others keep their values bit for bit. Otherwise the head has a gate for each
    level.

    Args:
        head: The head.
        adapter: Its record.
        policy: Policy of the head's own gates; by default every pixel that differs passes.
        max_streams: Maximum number of stored streams.
        buffer_dtype: Storage dtype of the maps between convolutions; None for that of the
            computation. Outputs keep their dtype.
        on_scene: Whether the backbone follows the camera and says where its maps lie. Boxes are
            decoded on the frame all the same.
        refresh: Which later frames are computed whole, beside those that the parts before it say.
    """
    policy = checked_policy(Threshold(0.0) if policy is None else policy)
    store = StreamStore(max_streams)
    state = HeadState(policy, store, refresh=refresh, buffer_dtype=buffer_dtype, on_scene=on_scene)
    overrides = {"forward": _forward, "__call__": called}
    if on_scene:
        overrides.update({"predict_by_feat": _decode, "_predict_by_feat_single": _decode_one})
    attach_part(head, METHOD, overrides, state, adapter.bypassed(head), adapter)
    follow_models_around(head)
    return EventfulHeadHandle(head)


def _forward(head: nn.Module, host: Any, x: Sequence[Tensor]) -> Any:
    """The override of the head's forward: frames of one stream go one after the other."""
    state: HeadState = link(head).state
    if len(x[0]) == 0 or any(module.training for module in head.modules()):
        return host(x)
    size, run = len(x[0]), functools.partial(state.run_pass, None)
    beyond: list[tuple[int, int]] = []
    one = functools.partial(_outputs, head, state, beyond)
    if state.go_in_turn(size):
        outs = in_turn(lambda x: run(lambda: _kept(one(x))), size, 0, (x,), {})
    else:
        outs = run(lambda: one(x))
    if state.on_scene:
        state.beyond[outs[0][0]] = beyond
    return outs


def _decode(head: nn.Module, host: Any, scores: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    """The override of the method that decodes what the head says of a batch."""
    state: HeadState = link(head).state
    decoding, beyond = state.decoding, state.beyond.get(scores[0])
    decoding.beyond = None if beyond is None else iter(beyond)
    try:
        return host(scores, *args, **kwargs)
    finally:
        decoding.beyond = None


def _decode_one(head: nn.Module, host: Any, **given: Any) -> Any:
    """The override of the method that decodes one image; it is called for each in their order."""
    beyond = link(head).state.decoding.beyond
    down, right = (0, 0) if beyond is None else next(beyond)
    if (down, right) == (0, 0):
        return host(**given)
    moved = []
    for prior in given["mlvl_priors"]:  # x, y of each, once or twice
        prior = prior.clone()
        prior[:, 0::2] -= right
        prior[:, 1::2] -= down
        moved.append(prior)
    return host(**{**given, "mlvl_priors": moved})


@torch.no_grad()
def _outputs(
    head: nn.Module, state: HeadState, beyond: list[tuple[int, int]], levels: Sequence[Tensor]
) -> tuple[list[Tensor], ...]:
    """What the head says of a batch of frames, each with its stream's memory.

    Args:
        head: The head.
        state: Its own.
        beyond: Told for each frame by how many pixels it lies further than the levels' picture.
        levels: (B, C, h, w) each.
    """
    pages, others = pages_of(levels), levels[1:]
    shapes = (x.shape[1:] for x in others)
    state.begin(head, levels[0], *shapes, others=others if pages is None else None)
    state.decide(cells_of(levels[0]))
    running = state.running
    make, made = link(head).info.adapter.outputs(head), []
    for entry, share in enumerate(zip(*(running.parts(x) for x in levels))):
        stream = share[0][0]
        memory = memory_of(stream, on_scene=state.on_scene)
        page = None if pages is None else pages[entry]
        policy = running.policy_of(stream)
        sheets = sheets_of(memory, page, [x for _, x in share], policy, 1)
        memory.sheets.between = state.buffer_dtype
        memory.sheets.anew = stream is not None and stream.refreshed
        made.append(make(memory.sheets, sheets))
        beyond.append((0, 0) if memory.place is None else memory.place.beyond)
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
