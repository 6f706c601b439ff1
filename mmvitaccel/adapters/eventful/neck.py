"""A neck that brings its levels up to date: ``apply_eventful_neck`` and its handle.

The neck's own forward runs; the paths that it calls, one for each level, are those that remember.
A frame begins when its map reaches the first path.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import Swap, link
from mmvitaccel.adapters.bypass import Bypass
from mmvitaccel.adapters.eventful.around import follow_models_around
from mmvitaccel.adapters.eventful.handle import StreamHandle, checked_policy
from mmvitaccel.adapters.eventful.stream_run import Root, StreamRun, attach_run, in_turn, train
from mmvitaccel.adapters.hosts.own.necks import find_neck
from mmvitaccel.core.eventful.gates.policy import Policy, Threshold
from mmvitaccel.core.eventful.maps.levels import MapMemory, start_level
from mmvitaccel.core.eventful.stream import StreamStore

METHOD = "EventfulNeck"


@dataclass
class NeckState(StreamRun):
    """What the neck and its paths share.

    Attributes:
        num_paths: Paths of the neck.
    """

    num_paths: int = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> NeckState:
        # reason: a copied model starts without streams.
        return NeckState(self.policy, copy.deepcopy(self.store), num_paths=self.num_paths)


class EventfulNeckHandle(StreamHandle):
    """Steers EventfulNeck on one model; a transformer's :class:`EventfulHandle` is another one.

    Of :attr:`frames`, ``num_tokens`` are the cells of the neck's input, and ``passed`` holds one
    number, of the cells that were let through.
    """

    method = METHOD
    puts_on = "apply_eventful_neck"


def apply_eventful_neck(
    model: nn.Module, policy: Policy | None = None, *, max_streams: int = 4
) -> EventfulNeckHandle:
    """Compute of a feature pyramid only what changed from frame to frame.

    A gate before the neck remembers each cell of its input as it was when last let through.
    Pixels of the levels that depend on a cell which passes are recomputed, and the levels are
    those of the plain neck on the map as the gate let it through: with the default policy, on the
    map itself. A stream takes the memory of two further copies of the levels.

    Keys of the state dict, parameters and classes of the package stay as they are. In training the
    neck is the plain one; outputs in evaluation carry no gradients.

    Args:
        model: A supported neck, or a module that holds exactly one; such a module may be a
            detector of OpenMMLab, whose data samples then say which video an image is of.
        policy: What the gate lets through of the cells: :class:`~mmvitaccel.TopK`,
            ``TopFraction``, ``Threshold``, ``Always``, or any object with their one method. By
            default every cell that differs at all. ``Threshold`` waits for a CUDA device, to know
            how many cells there are; the others do not.
        max_streams: Most streams remembered at a time; the least recently used is evicted.

    Returns:
        The handle. EventfulNeck on a neck that has it already replaces what was there, with a
        warning.

    Raises:
        ValueError: No supported neck is found, or an argument has no meaning.
        TypeError: The policy has no method ``select``.
    """
    neck, adapter = find_neck(model)
    policy = checked_policy(Threshold(0.0) if policy is None else policy)
    paths = adapter.paths(neck)
    state = NeckState(policy, StreamStore(max_streams), num_paths=len(paths))
    parts = [(path, adapter.bypassed(path)) for path in paths]
    bypass = Bypass(METHOD, neck, parts, adapter.paths, gradients=False)
    bypass.check()
    swaps = [Swap(neck, {"forward": _forward, "train": train}, Root(bypass))]
    for index, path in enumerate(paths):
        swaps.append(Swap(path, {"forward": _path_forward}, (neck, index, adapter)))
    attach_run(neck, METHOD, swaps, state)
    follow_models_around(neck)
    handle = EventfulNeckHandle(neck)
    if model is not neck:
        handle.follow_metainfo(model)
    return handle


def _forward(neck: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of the neck's forward: frames of one stream go one after the other."""
    state: NeckState = link(neck).state
    inputs = args[0] if args else next(iter(kwargs.values()))
    size = len(inputs if isinstance(inputs, Tensor) else inputs[0])

    def run(*args: Any, **kwargs: Any) -> Any:
        return state.run_pass(None, functools.partial(host, *args, **kwargs))

    if not neck.training and state.go_in_turn(size):
        return in_turn(run, size, 0, args, kwargs)
    return run(*args, **kwargs)


def _path_forward(path: nn.Module, host: Any, x: Tensor) -> Tensor:
    """The override of a path's forward."""
    found = link(path)
    state: NeckState = found.state
    neck, index, adapter = found.info
    if path.training:
        return host(x)
    with torch.no_grad():
        if index == 0:
            _begin(state, neck, x)
        running = state.running
        if running is None or running.next_block != index:  # called outside of the model's forward
            return host(x)
        running.next_block += 1
        steps, levels = adapter.steps(path), []
        for stream, part in running.parts(x):
            if stream is None:
                levels.append(start_level(steps, part).out)
            else:
                levels.append(stream.blocks[0].level(index, steps, part))
        if running.next_block == state.num_paths:
            for stream in filter(None, running.states):
                stream.busy = False
            state.end(x.shape[2] * x.shape[3])
    # reason: a copy, for the memory is changed by the next frame, and the levels are the caller's.
    return torch.cat(levels).permute(0, 3, 1, 2)


def _begin(state: NeckState, neck: nn.Module, x: Tensor) -> None:
    """A map reaches the first path: the gate looks at each frame's."""
    state.begin(neck, x)
    for stream, part in state.running.parts(x):
        if stream is None:
            continue
        # reason: an interrupted frame leaves its memory half changed; the stream then
        # starts clean at its next frame.
        stream.busy = True
        if stream.blocks:
            stream.blocks[0].take(part, state.running.policy)
        else:
            stream.blocks[0] = MapMemory.start(part)
