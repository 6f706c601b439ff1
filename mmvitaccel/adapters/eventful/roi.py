"""An eventful head over proposals, which recomputes only proposals with changes under them.

The host's own methods run, but methods that compute proposals only get those with a new box or with
a changed pixel in their region; the others keep their results. A frame begins when levels and
proposals reach the head.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import Swap, link
from mmvitaccel.adapters.eventful.handle import StreamHandle, checked_policy
from mmvitaccel.adapters.eventful.pages import memory_of, pages_of, sheets_of
from mmvitaccel.adapters.eventful.streams.around import follow_models_around
from mmvitaccel.adapters.eventful.streams.attachment import attach_part
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.adapters.half_linears import convert_linears
from mmvitaccel.adapters.parts import RoIAdapter
from mmvitaccel.core.eventful.gates.policy import Policy, Threshold
from mmvitaccel.core.eventful.maps.memory import cells_of
from mmvitaccel.core.eventful.maps.proposals import ProposalMemory, untouched
from mmvitaccel.core.eventful.maps.sheets import Sheet
from mmvitaccel.core.eventful.store import StreamStore
from mmvitaccel.core.kernels.roi_align import can_align, roi_align

METHOD = "EventfulRoIHead"


@dataclass
class RoIState(StreamRun):
    """State shared by the head and its handle.

    Attributes:
        on_scene: Whether its levels are those of views over scenes; proposals lie on the frame.
    """

    on_scene: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> RoIState:
        # A copied model starts without streams.
        return RoIState(self.policy, copy.deepcopy(self.store), on_scene=self.on_scene)


class EventfulRoIHandle(StreamHandle):
    """Controls the eventful RoI head of one detector.

    Of :attr:`frames`, ``num_tokens`` are the proposals of all steps, and ``passed`` holds the
    number of pixels that the head's own gates let through; it is empty where it follows a neck.
    """

    method = METHOD
    puts_on = "apply_eventful"


@dataclass
class _Work:
    """One stream's frame.

    Attributes:
        memory: What is remembered of the stream.
        sheets: The levels, (B, h, w, D) each.
    """

    memory: ProposalMemory
    sheets: list[Sheet]


def attach_roi_head(
    head: nn.Module,
    adapter: RoIAdapter,
    policy: Policy | None = None,
    max_streams: int = 4,
    on_scene: bool = False,
) -> EventfulRoIHandle:
    """Make an RoI head eventful by its record.

    A proposal keeps its result (class scores, box and mask before non-maximum suppression) if the
    previous frame had the same box on the same level of a picture of the same size, and no pixel of
    its sampled region changed. In a cascade, this applies to each stage separately.

    Args:
        head: The head.
        adapter: Its record.
        policy: Of its own gates, where no neck says which pixels are new; by default every pixel
            that differs at all passes.
        max_streams: Most streams remembered at a time.
        on_scene: Whether the backbone follows the camera and says where its maps lie. Proposals
            are those of the frame all the same; boxes that lie as close as a thirty-second of a
            pixel in the scene are then taken for the same one.
    """
    policy = checked_policy(Threshold(0.0) if policy is None else policy)
    overrides = {"predict": _predict, "forward": _forward}
    overrides.update({"_bbox_forward": _bbox_forward, "_mask_forward": _mask_forward})
    state = RoIState(policy, StreamStore(max_streams), on_scene=on_scene)
    swaps = [Swap(layer, {"forward": _sample}) for layer in adapter.samplers(head)]
    attach_part(head, METHOD, overrides, state, (), adapter, swaps)
    follow_models_around(head)
    return EventfulRoIHandle(head)


def _predict(head: nn.Module, host: Any, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    """The override of ``predict``: frames of one stream go one after the other."""
    state: RoIState = link(head).state
    if len(x[0]) == 0 or any(module.training for module in head.modules()):
        return host(x, *args, **kwargs)
    if not state.go_in_turn(len(x[0])):
        return state.run_pass(None, lambda: _run(head, state, host, x, args, kwargs))
    found = []
    for image in range(len(x[0])):
        own = [level[image : image + 1] for level in x]
        part = [_of_image(value, image) for value in args]
        named = {name: _of_image(value, image) for name, value in kwargs.items()}
        run = functools.partial(_run, head, state, host, own, part, named)
        found += state.run_pass(None, run)
    return found


def _of_image(value: Any, image: int) -> Any:
    """Of a list with an item for each image, the image's."""
    return [value[image]] if isinstance(value, (list, tuple)) else value


def _forward(head: nn.Module, host: Any, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    """The override of ``forward``, by which a detector is called for tensors."""
    state: RoIState = link(head).state
    if len(x[0]) == 0 or any(module.training for module in head.modules()):
        return host(x, *args, **kwargs)
    if state.go_in_turn(len(x[0])):
        return host(x, *args, **kwargs)
    return state.run_pass(None, lambda: _run(head, state, host, x, args, kwargs))


@torch.no_grad()
def _run(
    head: nn.Module, state: RoIState, host: Any, x: Sequence[Tensor], args: Any, kwargs: Any
) -> Any:
    """The host's own method on a batch of frames, each with its stream's memory."""
    pages, others = pages_of(x), x[1:]
    shapes = (level.shape[1:] for level in others)
    state.begin(head, x[0], *shapes, others=others if pages is None else None)
    state.decide(cells_of(x[0]))
    convert_linears(head, METHOD, [head], x[0])
    running = state.running
    running.work = []
    for entry, share in enumerate(zip(*(running.parts(level) for level in x))):
        memory = memory_of(share[0][0], ProposalMemory, state.on_scene)
        page = None if pages is None else pages[entry]
        policy = running.policy_of(share[0][0])
        sheets = sheets_of(memory, page, [level for _, level in share], policy, 0)
        running.work.append(_Work(memory, sheets))
    if pages is None:
        # The levels as the gates let them through
        x = [torch.cat(maps) for maps in zip(*([s.map for s in w.sheets] for w in running.work))]
    running.next_block = 1  # a call of this very model within the host's is one of its own
    found = host(x, *args, **kwargs)
    for stream in filter(None, running.states):
        stream.busy = False
    state.end(sum(work.memory.asked for work in running.work))
    return found


def _sample(layer: nn.Module, host: Any, x: Tensor, rois: Tensor) -> Tensor:
    """The override of RoIAlign: remembered levels are sampled as they lie."""
    if layer.pool_mode != "avg" or not can_align(x, rois):
        return host(x, rois)
    given = (layer.spatial_scale, layer.sampling_ratio, layer.aligned)
    return roi_align(x, rois, *layer.output_size, *given)


def _bbox_forward(head: nn.Module, host: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The override of the step that computes boxes."""
    return _step(head, host, "_bbox_forward", args, kwargs)


def _mask_forward(head: nn.Module, host: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The override of the step that computes masks."""
    return _step(head, host, "_mask_forward", args, kwargs)


def _step(head: nn.Module, host: Any, method: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """The results of proposals, computed or kept."""
    found = link(head)
    running, adapter = found.state.running, found.info.adapter
    arguments, names = adapter.steps[method]
    given = {**dict(zip(arguments, args)), **kwargs}
    if running is None or set(given) != set(arguments) or given["rois"] is None:
        return host(*args, **kwargs)  # outside of a frame
    rois, stage = given["rois"], given.get("stage", 0)
    step, extractor = f"{method} {stage}", adapter.extractor(head, method, stage)
    if found.state.on_scene:
        rois = _on_view(rois, running.work)
    shares = _shares(rois, running.work)
    for share in shares:
        share.kept = _kept(share, step, extractor)
    kept = torch.cat([share.kept for share in shares])
    rows = torch.cat([share.rows for share in shares])
    new = rows[kept < 0].sort().values
    made: dict[str, Tensor | None] = {}
    if len(new) or not len(rois):
        made = host(**{**given, "rois": rois if len(new) == len(rois) else rois[new]})
    values = {name: _joined(made.get(name), new, shares, step, name) for name in names}
    for share in shares:
        own = {name: value[share.rows] for name, value in values.items() if value is not None}
        share.work.memory.keep(step, share.boxes, own, (share.kept < 0).sum())
    return values


@dataclass
class _Share:
    """One stream's proposals of a step.

    Attributes:
        work: The stream's frame.
        rows: (N,) where they lie in the batch.
        boxes: (N, 5) the image of the stream's, then the box.
        kept: (N,) where the result lies among those of the frame before; -1 where it is computed.
    """

    work: _Work
    rows: Tensor
    boxes: Tensor
    kept: Tensor | None = None


def _on_view(rois: Tensor, works: list[_Work]) -> Tensor:
    """Proposals (N, 5) of frames, where they lie on the levels' pictures."""
    beyond = [(0, 0) if w.memory.place is None else w.memory.place.beyond for w in works]
    if not any(map(any, beyond)):
        return rois
    moved = rois.clone()
    for entry, (down, right) in enumerate(beyond):
        here = 1.0 if len(works) == 1 else (rois[:, :1] == entry).to(rois.dtype)
        moved[:, 1::2] += right * here
        moved[:, 2::2] += down * here
    return moved


def _shares(rois: Tensor, works: list[_Work]) -> list[_Share]:
    """The proposals of each stream."""
    if len(works) == 1:
        return [_Share(works[0], torch.arange(len(rois), device=rois.device), rois.clone())]
    shares = []
    for entry, work in enumerate(works):
        rows = (rois[:, 0] == entry).nonzero()[:, 0]
        boxes = rois[rows]
        boxes[:, 0] = 0
        shares.append(_Share(work, rows, boxes))
    return shares


def _kept(share: _Share, step: str, extractor: nn.Module) -> Tensor:
    """Where results that hold lie among those of the frame before, (N,); -1 for the others."""
    sheets = share.work.sheets[: extractor.num_inputs]
    places = share.work.memory.find(step, share.boxes)
    boxes = share.boxes.to(sheets[0].padded.dtype)  # as the extractor samples them
    levels = extractor.map_roi_levels(boxes, len(sheets))
    holds = torch.zeros_like(places, dtype=torch.bool)
    for level, (sheet, layer) in enumerate(zip(sheets, extractor.roi_layers)):
        if sheet.changed is None:
            continue
        first, last = _sampled(boxes[:, 1:].float(), layer.spatial_scale, layer.aligned)
        for image, changed in enumerate(sheet.changed):
            here = (levels == level) & (boxes[:, 0] == image)
            holds |= here & untouched(first, last, changed)
    return places.where(holds & boxes.isfinite().all(1), places.new_full((), -1))


def _sampled(boxes: Tensor, scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """First and last pixels (column, row) that RoIAlign reads for boxes (N, 4), each (N, 2)."""
    start, end = (boxes * scale - (0.5 if aligned else 0.0)).split(2, dim=1)
    if not aligned:
        end = torch.maximum(end, start + 1)
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    # Samples lie between both ends but for rounding, and are mixed of two pixels an axis
    return (low - 0.01).nan_to_num().floor().long(), (high + 0.01).nan_to_num().floor().long() + 1


def _joined(
    made: Tensor | None, new: Tensor, shares: list[_Share], step: str, name: str
) -> Tensor | None:
    """Results of all proposals, from those of the new ones and from what is remembered."""
    count = sum(len(share.rows) for share in shares)
    if len(new) == count:
        return made
    kept = [share.work.memory.results[step].values.get(name) for share in shares if _any(share)]
    if kept[0] is None:
        return None
    value = kept[0].new_empty(count, *kept[0].shape[1:])
    if made is not None:
        value[new] = made
    for share in shares:
        if _any(share):
            old, holds = share.work.memory.results[step].values[name], share.kept >= 0
            value[share.rows[holds]] = old[share.kept[holds]]
    return value


def _any(share: _Share) -> bool:
    """Whether any of its results is kept."""
    return bool((share.kept >= 0).any())
