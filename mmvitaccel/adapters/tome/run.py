"""Forward pass of a model with ToMe, whose tokens merge block by block."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import check_attached, is_attached, link
from mmvitaccel.adapters.base import BlockSpec, class_name, host_class
from mmvitaccel.adapters.bypass import Bypass, wraps_own
from mmvitaccel.adapters.tome.restore import continue_block, restore_block
from mmvitaccel.adapters.tome.step import MergeOptions, merge_block
from mmvitaccel.core.kernels.export import refuse_symbols
from mmvitaccel.core.tome.schedule import Entry, Schedule
from mmvitaccel.core.tome.trace import Trace, Traces

METHOD = "ToMe"


@dataclass
class ToMeState:
    """State shared by the model and its blocks.

    Attributes:
        r: Value given by the user.
        schedule: One entry per block.
        num_prefix_tokens: Number of protected leading tokens.
        options: Options of matching and merging.
        trace_source: Whether ``info`` has the sources.
        traces: Traces of the passes.
        bypass: The bypassed modules.
        first_of_run: For each block the first one of its run, whose merges it takes over where
            tokens are restored at the end of a run.
    """

    r: Schedule
    schedule: tuple[Entry, ...]
    num_prefix_tokens: int
    options: MergeOptions
    trace_source: bool
    traces: Traces
    bypass: Bypass
    first_of_run: tuple[int, ...] = ()


@functools.cache
def entry_method(name: str) -> Any:
    """The override of one method by which tokens enter the blocks; it opens and ends a pass."""

    def run(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
        found = link(model, METHOD)
        state, adapter = found.state, found.info
        refuse_symbols(METHOD, args, kwargs)
        full_at = frozenset((*adapter.entries[name](model), *adapter.asked(model, kwargs)))
        traces = state.traces
        if traces.active is not None and not traces.active.behind:  # one that another one calls
            traces.active.full_at |= full_at
            return host(*args, **kwargs)
        # A pass of this thread whose blocks have begun is interrupted by somebody, such as a hook.
        state.bypass.check()
        trace = Trace(state.schedule, full_at)
        before = traces.start(trace)
        try:
            out = host(*args, **kwargs)
        finally:
            traces.stop(trace, before)
        check_attached(model, found)
        return out

    return run


def block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a block's forward."""
    found = link(block, METHOD)
    state: ToMeState = found.state
    index: int
    spec: BlockSpec
    index, spec = found.info
    handed = args[0] if args else next(iter(kwargs.values()))
    trace = state.traces.at(index, handed)
    if trace is None:  # called outside the model's forward: use the host's forward
        _check_entries(state.bypass.model)
        return host(*args, **kwargs)
    given, entry = spec.enter(block, *args, **kwargs), trace.schedule[index]
    prefix, options = state.num_prefix_tokens, state.options
    _check_tokens(state, trace, index, given.x.shape[1] // given.segments)
    if given.sequences > 1 and options.restore == "end":
        raise ValueError(
            f"ToMe: restore='end' keeps what merges over blocks with the same windows, and "
            f"{class_name(block)} attends within windows or over all as it is called; use "
            "restore='block'."
        )
    if spec.keeps_grid:
        first = index if options.restore == "block" else state.first_of_run[index]
        matching = trace.matchings.get(first) if first < index else None
        if matching is not None:
            standing = trace.behind[first]
            x = continue_block(block, spec, given, standing, matching, options)
        else:
            entry = trace.schedule[first]
            x, standing, matching = restore_block(block, spec, given, entry, prefix, options)
            trace.matchings[index] = matching
    else:
        standing = trace.enter(index, given.x, given.grid_size)
        given = given._replace(x=standing.present_tokens(given.x))
        x, standing = merge_block(block, spec, given, standing, entry, prefix, options)
        if index in trace.full_at:
            x = standing.all_tokens(x)
    trace.behind[index] = standing
    out = spec.leave(block, x, given)
    state.traces.remember(index, handed, out[0] if isinstance(out, tuple) else out, trace)
    return out


def _check_entries(model: nn.Module) -> None:
    """Refuse a method of the model that was replaced, and calls the blocks past ToMe."""
    for name in ("forward", *link(model, METHOD).info.entries):
        if name in model.__dict__ and not wraps_own(model, name):
            raise RuntimeError(
                f"ToMe: a block runs outside of a pass, and {name!r} of this "
                f"{host_class(model).__name__} was replaced on the instance: ToMe starts in the "
                f"class's own method, so it would have no effect; call that method in yours, "
                f"restore it (del model.{name}) or remove ToMe (handle.remove())."
            )


def _check_tokens(state: ToMeState, trace: Trace, index: int, num_tokens: int) -> None:
    free = num_tokens - state.num_prefix_tokens
    # Of a clip that hardly changes, RLT leaves a token or two
    if index == 0 and free < 2 and any(trace.schedule) and not _is_shortened(state.bypass.model):
        raise ValueError(
            f"ToMe: r={state.r} but only {free} tokens beside {state.num_prefix_tokens} prefix "
            "tokens reach the first block; merging needs two, give a larger input or r=0."
        )


def _is_shortened(model: nn.Module) -> bool:
    return is_attached(model, "RLT")
