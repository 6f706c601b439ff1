"""ToMe on a model of any supported family: ``apply_tome`` and the handle that it returns."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.attach import Swap, attach, detach, is_attached, link
from mmvitaccel.adapters.base import BlockSpec, ViTAdapter, host_class, spec_of
from mmvitaccel.adapters.bypass import Bypass, bypass_of_blocks, wraps_own
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.tome.frozen import METHOD, why_not_frozen
from mmvitaccel.adapters.tome.restore import continue_block, restore_block, runs_of
from mmvitaccel.adapters.tome.step import MergeOptions, merge_block
from mmvitaccel.core.tome.matcher import Bipartite, Matcher
from mmvitaccel.core.tome.matchings import build_matching
from mmvitaccel.core.tome.merge import source_of
from mmvitaccel.core.tome.schedule import Entry, Schedule, make_schedule
from mmvitaccel.core.tome.trace import Trace, Traces

_CHOICES = {
    "metric": ("keys", "queries", "values", "tokens"),
    "similarity": ("cosine", "dot"),
    "reduction": ("merge", "prune"),
    "restore": ("block", "end"),
}


@dataclass
class ToMeState:
    """What the model and its blocks share.

    Attributes:
        r: As the user gave it.
        schedule: One entry per block.
        num_prefix_tokens: Protected tokens in front.
        options: How tokens are compared and merged.
        trace_source: Whether ``info`` tells the sources.
        traces: The passes.
        bypass: The modules that are not called.
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


@dataclass(frozen=True)
class ToMeInfo:
    """What became of the tokens in the last forward pass, one entry per block.

    Where the block restores its tokens (windows, frames), the entries are about the merged ones
    inside of it, with B windows or frames.

    Attributes:
        tokens: Tokens that left the block, with prefix tokens; of the longest image.
        sizes: Patches in each of them (B, N, 1), float32; 0 at the end of a shorter image.
        sources: Which input tokens each of them holds (B, N, N0), bool; None unless
            ``trace_source`` was asked for.
    """

    tokens: list[int]
    sizes: list[Tensor]
    sources: list[Tensor] | None


class ToMeHandle:
    """Steers ToMe on one model.

    Attributes:
        model: The transformer that ToMe is on.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._state: ToMeState = link(model, METHOD).state

    @property
    def attached(self) -> bool:
        """Whether this handle's ToMe is still on its model."""
        found = link(self.model, METHOD)
        return found is not None and found.state is self._state

    @property
    def r(self) -> Schedule:
        """Tokens merged per block, as given; a new value holds from the next forward pass."""
        return self._state.r

    @r.setter
    def r(self, value: Schedule) -> None:
        self._check_attached("r cannot be set")
        state = self._state
        if state.traces.active is not None:
            raise RuntimeError(
                f"ToMe: r cannot change from {state.r} to {value} during a forward pass; set it "
                "before or after."
            )
        schedule = make_schedule(value, len(state.schedule))
        if self.model.training and state.traces.last is not None and schedule != state.schedule:
            warnings.warn(
                f"ToMe: r changes from {state.r} to {value} while the model is in training mode; "
                "the next forward pass follows, the steps so far were at the old r.",
                stacklevel=2,
            )
        state.r, state.schedule = value, schedule

    @property
    def info(self) -> ToMeInfo:
        """What became of the tokens in the last forward pass.

        Of several threads that run the model, each is told of its own last pass.

        Raises:
            RuntimeError: If there was none.
        """
        trace = self._state.traces.last
        if trace is None or not trace.behind:
            raise RuntimeError("ToMe: no forward pass has run yet, so there is no info.")
        return _info(trace, self._state.trace_source)

    @property
    def tokens(self) -> list[int]:
        """``info.tokens`` alone; empty before the first forward pass."""
        trace = self._state.traces.last
        return [] if trace is None else _tokens(trace)

    def remove(self) -> None:
        """Give the model back bit for bit; a second call changes nothing."""
        if self.attached:
            detach(self.model, METHOD)

    def _check_attached(self, refused: str) -> None:
        if not self.attached:
            raise RuntimeError(
                f"ToMe: {refused}, this handle's ToMe was removed from its "
                f"{host_class(self.model).__name__} or replaced; use the newer handle or apply "
                "it again."
            )


def apply_tome(
    model: nn.Module,
    r: Schedule = 8,
    *,
    proportional_attention: bool = True,
    trace_source: bool = False,
    metric: str = "keys",
    similarity: str = "cosine",
    matching: Mapping[str, Any] | Matcher | None = None,
    reduction: str = "merge",
    restore: str = "block",
    adapter: ViTAdapter | None = None,
) -> ToMeHandle:
    """Merge tokens in the vision transformer that ``model`` is or holds.

    The outputs keep their shapes: wherever the host reads all tokens, they are unmerged, so dense
    maps stay B x C x H x W and a mean over tokens is one over patches. Keys of the state dict,
    parameters and classes of the package stay as they are.

    Args:
        model: A supported vision transformer, or a module that holds exactly one.
        r: Tokens merged per block: an int, a fraction, a list with an entry per block, or
            ``(r, inflection)``; more than possible means as many as possible.
        proportional_attention: Add log(size) to the attention logits. On for supervised models,
            off for MAE models that were not trained with it.
        trace_source: Let ``handle.info`` tell which patches are in each token.
        metric: Ablation: compare ``keys``, ``queries``, ``values`` or ``tokens``.
        similarity: Ablation: ``cosine`` or ``dot``, in the paper's matching.
        matching: What chooses the tokens that merge: None for the paper's,
            ``dict(type='Bipartite')``; ``Threshold``, of which the number
            follows the picture, r at most; ``Grid``, neighbours only; ``RandomMatching`` and
            ``RandomDrop``, controls; or an object with the one method of
            :class:`mmvitaccel.core.tome.matcher.Matcher`.
        reduction: Ablation: ``merge``, or ``prune`` the tokens that the class token attends to
            least.
        restore: For models whose blocks give all tokens back (windows, frames): ``block`` merges
            anew in every block; ``end`` merges once over a run of blocks with the same windows, by
            the first one's keys and ``r``, and the others compute queries, keys and values of
            merged tokens alone. Windows must then divide the map.
        adapter: A record for a model that no family here covers.

    Returns:
        The handle. ToMe on a model that has it already replaces what was there, with a warning.

    Raises:
        ValueError: If no supported transformer is found, or an argument has no meaning for it.
        RuntimeError: If another method is on the model.
    """
    options = _options(proportional_attention, metric, similarity, matching, reduction, restore)
    if adapter is None:
        model = locate(model)[1]
        adapter = find_adapter(model)
    blocks = list(adapter.blocks(model))
    specs = [spec_of(block, adapter) for block in blocks]
    prefix = adapter.prefix(model)
    if reduction == "prune" and prefix[:1] != ("class",):
        raise ValueError(
            f"ToMe: reduction='prune' reads the class token's attention and this {adapter.name} "
            "has none; use reduction='merge'."
        )
    if reduction == "prune" and any(spec.keeps_grid for spec in specs):
        raise ValueError(
            f"ToMe: reduction='prune' drops tokens, and {adapter.name} needs all of them behind "
            "each block; use reduction='merge'."
        )
    first_of_run = tuple(runs_of(blocks, specs))
    if restore == "end" and not _has_runs(specs, first_of_run):
        raise ValueError(
            f"ToMe: restore='end' is for blocks in a row that give all tokens back and have the "
            f"same windows, and this {adapter.name} has none; use restore='block'."
        )
    schedule = make_schedule(r, len(blocks))
    bypass = bypass_of_blocks(METHOD, model, adapter, specs, gradients=True)
    bypass.check()
    _check_together(model, adapter, specs, options)
    state = ToMeState(
        r, schedule, len(prefix), options, trace_source, Traces(len(blocks)), bypass, first_of_run
    )
    entries = {name: _entry_method(name) for name in adapter.entries if hasattr(model, name)}
    swaps = [Swap(model, entries, adapter)]
    swaps += [
        Swap(block, {"forward": _block_forward}, (index, spec))
        for index, (block, spec) in enumerate(zip(blocks, specs))
    ]
    before = link(model, METHOD)
    attach(model, METHOD, swaps, state)
    if before is not None:
        warnings.warn(
            f"ToMe was on this {host_class(model).__name__} with r={before.state.r} and is "
            f"replaced by r={r}.",
            stacklevel=2,
        )
    return ToMeHandle(model)


def _check_together(
    model: nn.Module, adapter: ViTAdapter, specs: list[BlockSpec], options: MergeOptions
) -> None:
    """Refuse a model that is eventful in a way that cannot be together with merging."""
    found = link(model, "Eventful")
    if found is None:
        return
    reason = why_not_frozen(adapter, specs, options.matching, found.state.options.kv_pool_size)
    if reason is not None:
        raise RuntimeError(
            f"ToMe cannot be put on {host_class(model).__name__}: Eventful is on it already and "
            f"{reason}; remove Eventful first."
        )


def _has_runs(specs: list[BlockSpec], first_of_run: tuple[int, ...]) -> bool:
    return any(
        spec.keeps_grid and first < index
        for index, (spec, first) in enumerate(zip(specs, first_of_run))
    )


def _options(
    proportional: bool,
    metric: str,
    similarity: str,
    matching: Mapping[str, Any] | Matcher | None,
    reduction: str,
    restore: str,
) -> MergeOptions:
    given = dict(metric=metric, similarity=similarity, reduction=reduction, restore=restore)
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"ToMe: {name}={value!r} must be one of {', '.join(_CHOICES[name])}.")
    if reduction == "prune" and matching is not None:
        raise ValueError(
            f"ToMe: reduction='prune' chooses by the class token's attention, so that matching="
            f"{matching!r} would be left out; give one of the two."
        )
    if similarity != "cosine" and matching is not None:
        raise ValueError(
            f"ToMe: similarity={similarity!r} is of the paper's matching, and matching="
            f"{matching!r} was given; give one of the two."
        )
    matcher = Bipartite(similarity) if matching is None else build_matching(matching)
    return MergeOptions(proportional, metric, matcher, reduction, restore)


@functools.cache
def _entry_method(name: str) -> Any:
    """The override of one method by which tokens enter the blocks; it opens and ends a pass."""

    def run(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
        found = link(model, METHOD)
        state, adapter = found.state, found.info
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
            return host(*args, **kwargs)
        finally:
            traces.stop(trace, before)

    return run


def _block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a block's forward."""
    found = link(block, METHOD)
    state: ToMeState = found.state
    index: int
    spec: BlockSpec
    index, spec = found.info
    handed = args[0] if args else next(iter(kwargs.values()))
    trace = state.traces.at(index, handed)
    if trace is None:  # called outside of the model's forward: it is the host's
        _check_entries(state.bypass.model)
        return host(*args, **kwargs)
    given, entry = spec.enter(block, *args, **kwargs), trace.schedule[index]
    prefix, options = state.num_prefix_tokens, state.options
    _check_tokens(state, trace, index, given.x.shape[1])
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
                f"{host_class(model).__name__} was replaced on the instance: ToMe begins in the "
                f"class's own, so that it would be off; let yours call that one, restore it (del "
                f"model.{name}) or take ToMe off (handle.remove())."
            )


def _check_tokens(state: ToMeState, trace: Trace, index: int, num_tokens: int) -> None:
    free = num_tokens - state.num_prefix_tokens
    # reason: of a clip that hardly changes, RLT leaves a token or two
    if index == 0 and free < 2 and any(trace.schedule) and not _is_shortened(state.bypass.model):
        raise ValueError(
            f"ToMe: r={state.r} but only {free} tokens beside {state.num_prefix_tokens} prefix "
            "tokens reach the first block; two are needed to merge, give a larger input or r=0."
        )


def _is_shortened(model: nn.Module) -> bool:
    return is_attached(model, "RLT")


def _tokens(trace: Trace) -> list[int]:
    return [trace.behind[index].size.shape[1] for index in sorted(trace.behind)]


def _info(trace: Trace, with_sources: bool) -> ToMeInfo:
    behind = [trace.behind[index] for index in sorted(trace.behind)]
    sizes, tokens = [standing.size for standing in behind], _tokens(trace)
    if not with_sources:
        return ToMeInfo(tokens, sizes, None)
    sources = [source_of(standing.owners(), n) for standing, n in zip(behind, tokens)]
    return ToMeInfo(tokens, sizes, sources)
