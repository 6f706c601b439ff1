"""An eventful neck: ``apply_eventful_neck`` and its handle.

The steps of the neck's record run in place of its forward. A frame begins when its maps reach it.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.handle import StreamHandle, checked_policy
from mmvitaccel.adapters.eventful.pages import memory_of, put_pages
from mmvitaccel.adapters.eventful.streams.around import follow_models_around
from mmvitaccel.adapters.eventful.streams.attachment import attach_part, called
from mmvitaccel.adapters.eventful.streams.in_turn import in_turn
from mmvitaccel.adapters.eventful.streams.stream_run import INTERPOLATED, StreamRun
from mmvitaccel.adapters.given import check_model
from mmvitaccel.adapters.hosts.parts import find_neck
from mmvitaccel.adapters.parts import NeckAdapter
from mmvitaccel.core.eventful.gates.policy import Policy, Threshold
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.maps.memory import Pages, cells_of, take_together
from mmvitaccel.core.eventful.store import StreamStore

METHOD = "EventfulNeck"


@dataclass
class NeckState(StreamRun):
    """State shared by the neck and its handle.

    Attributes:
        lends: Whether the levels that are given out are the memory itself, which the stream's next
            frame changes.
        on_scene: Whether the backbone's maps are those of views over scenes, and the levels too.
        tops_up: Whether cells that have clearly changed pass beyond the policy's budget.
    """

    lends: bool = False
    on_scene: bool = False
    tops_up: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> NeckState:
        # A copied model starts without streams.
        store = copy.deepcopy(self.store)
        return NeckState(
            self.policy,
            store,
            refresh=self.refresh,
            lends=self.lends,
            on_scene=self.on_scene,
            tops_up=self.tops_up,
        )


class EventfulNeckHandle(StreamHandle):
    """Controls EventfulNeck on one model; transformers have an :class:`EventfulHandle`.

    Of :attr:`frames`, ``num_tokens`` are the cells of all maps that the neck reads, and ``passed``
    holds one number, of the cells that were let through.
    """

    method = METHOD
    puts_on = "apply_eventful_neck"


def apply_eventful_neck(
    model: nn.Module, policy: Policy | None = None, *, max_streams: int = 4
) -> EventfulNeckHandle:
    """Recompute only what changed from frame to frame in a feature pyramid.

    A gate before the neck stores each cell of its input as it was when it last passed. Pixels of
    the levels that depend on a passing cell are recomputed; all others keep their values bit for
    bit. The levels equal those of the plain neck on the stored maps, which with the default policy
    are the input maps. A stream needs memory for about two copies of the levels.

    If a neck reads several maps, each has its own gate. Errors are relative to the root mean square
    of the norms of the map's cells, so one ``Threshold`` above the noise works for all maps.

    State dict keys, parameters and classes do not change. In training the neck is the plain one;
    outputs in evaluation have no gradients.

    Args:
        model: A supported neck (:class:`~mmvitaccel.SimpleFPN`,
            :class:`~mmvitaccel.EfficientViTFPN`, mmdet's ``FPN``), or a module that contains
            exactly one, such as a detector of OpenMMLab, whose data samples then name the video of
            an image.
        policy: Selects the cells that pass the gate: :class:`~mmvitaccel.TopK`, ``TopFraction``,
            ``Threshold``, ``Always``, or any object with their method. By default every cell that
            differs. ``Threshold`` synchronises with a CUDA device to read the number of cells; the
            others do not.
        max_streams: Maximum number of stored streams; the least recently used is evicted.

    Returns:
        The handle. An existing EventfulNeck is replaced with a warning.

    Raises:
        ValueError: There is no supported neck, an argument is invalid, or the model's backbone
            follows its camera on its own.
        TypeError: The policy has no method ``select``.
    """
    check_model("EventfulNeck", model)
    neck, adapter = find_neck(model)
    for module in model.modules():
        motion = getattr(getattr(link(module), "state", None), "motion", None)
        if motion is not None and motion.maps == "frame":
            raise ValueError(INTERPOLATED)
    handle = attach_neck(neck, adapter, policy, max_streams)
    if model is not neck:
        handle.follow_metainfo(model)
    return handle


def attach_neck(
    neck: nn.Module,
    adapter: NeckAdapter,
    policy: Policy | None = None,
    max_streams: int = 4,
    lends: bool = False,
    on_scene: bool = False,
    refresh: Refresh = OnRequest(),  # noqa: B008
    tops_up: bool = False,
) -> EventfulNeckHandle:
    """Attach EventfulNeck to a neck by its record; see :func:`apply_eventful_neck`.

    Args:
        neck: The neck.
        adapter: Its record.
        policy: See there.
        max_streams: See there.
        lends: Whether the levels are returned without copies.
        on_scene: Whether its backbone follows the camera and says where its maps lie.
        refresh: Which later frames are computed whole, beside those that an eventful backbone says.
        tops_up: Whether cells that have clearly changed pass beyond the policy's budget.
    """
    policy = checked_policy(Threshold(0.0) if policy is None else policy)
    store = StreamStore(max_streams)
    state = NeckState(
        policy, store, refresh=refresh, lends=lends, on_scene=on_scene, tops_up=tops_up
    )
    overrides = {"forward": _forward, "__call__": called}
    attach_part(neck, METHOD, overrides, state, adapter.bypassed(neck), adapter)
    follow_models_around(neck)
    return EventfulNeckHandle(neck)


def _forward(neck: nn.Module, host: Any, inputs: Any) -> Any:
    """The override of the neck's forward: frames of one stream go one after the other."""
    state: NeckState = link(neck).state
    size = len(inputs if isinstance(inputs, Tensor) else inputs[0])
    if size == 0 or any(module.training for module in neck.modules()):
        return host(inputs)
    run = functools.partial(state.run_pass, None)
    if state.go_in_turn(size):
        # What is lent would be the next frame's by the time that all are put together
        one = functools.partial(_levels, neck, state, lends=False)
        return in_turn(lambda x: run(lambda: one(x)), size, 0, (inputs,), {})
    return run(lambda: _levels(neck, state, inputs, state.lends))


@torch.no_grad()
def _levels(neck: nn.Module, state: NeckState, inputs: Any, lends: bool) -> tuple[Tensor, ...]:
    """Levels of a batch of frames, each with its stream's state."""
    adapter = link(neck).info.adapter
    maps = adapter.inputs(neck, inputs)
    state.begin(neck, maps[0], *(x.shape[1:] for x in maps[1:]), others=maps[1:])
    state.decide(cells_of(maps[0]))
    make, border = adapter.levels(neck), adapter.border(neck)
    running = state.running
    shares = list(zip(*(running.parts(x) for x in maps)))
    streams = [share[0][0] for share in shares]
    memories = [memory_of(stream, on_scene=state.on_scene) for stream in streams]
    policies = [running.policy_of(stream) for stream in streams]
    given = [[x for _, x in share] for share in shares]
    own = take_together(memories, given, policies, border, state.tops_up)
    pages = [m.pages(make(m.sheets, sheets)) for m, sheets in zip(memories, own)]
    for stream in streams:
        if stream is not None:
            stream.busy = False
    state.end(sum(x.shape[2] * x.shape[3] for x in maps))
    return _given_out(pages, lends)


def _given_out(pages: list[Pages], lends: bool) -> tuple[Tensor, ...]:
    """The levels (B, C, h, w) of a batch; with them, what heads may follow."""
    if lends and len(pages) == 1:
        levels = tuple(sheet.map for sheet in pages[0].sheets)
    else:
        # A copy, for the memory is changed by the next frame, and the levels are the
        # caller's.
        streams = [[sheet.pixels for sheet in page.sheets] for page in pages]
        levels = tuple(torch.cat(parts).permute(0, 3, 1, 2) for parts in zip(*streams))
    if lends:
        put_pages(levels, pages)
    return levels
