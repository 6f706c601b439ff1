"""ToMe on a model of any supported family: ``apply_tome`` and the handle that it returns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import Swap, attach, link
from mmvitaccel.adapters.base import BlockSpec, ViTAdapter, host_class, spec_of
from mmvitaccel.adapters.bypass import bypass_of_blocks
from mmvitaccel.adapters.given import check_adapter, check_model
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.tome.frozen import why_not_frozen
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.adapters.tome.restore import runs_of
from mmvitaccel.adapters.tome.run import METHOD, ToMeState, block_forward, entry_method
from mmvitaccel.adapters.tome.step import MergeOptions
from mmvitaccel.arguments import flag, one_of
from mmvitaccel.core.tome.matcher import Bipartite, Matcher
from mmvitaccel.core.tome.matchings import build_matching
from mmvitaccel.core.tome.schedule import Schedule, make_schedule
from mmvitaccel.core.tome.trace import Traces

_CHOICES = {
    "metric": ("keys", "queries", "values", "tokens"),
    "similarity": ("cosine", "dot"),
    "reduction": ("merge", "prune"),
    "restore": ("block", "end"),
}


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
    """Merge tokens in a vision transformer, or in the one inside ``model``.

    Outputs keep their shapes: tokens are unmerged wherever the host reads all of them, so dense
    maps stay B x C x H x W and a mean over tokens is one over patches. State dict keys, parameters
    and classes do not change.

    Args:
        model: A supported vision transformer, or a module that contains exactly one.
        r: Tokens merged per block: an int, a fraction, a list with an entry per block, or
            ``(r, inflection)``; more than possible means as many as possible.
        proportional_attention: Add log(size) to the attention logits. On for supervised models,
            off for MAE models that were not trained with it.
        trace_source: Whether ``handle.info`` records the patches of each token.
        metric: Ablation: compare ``keys``, ``queries``, ``values`` or ``tokens``.
        similarity: Ablation: ``cosine`` or ``dot``, in the paper's matching.
        matching: Chooses the tokens to merge: None or ``dict(type='Bipartite')`` for the paper's
            matching; ``Threshold`` for a number that depends on the picture, at most r; ``Grid``
            for neighbours only; the controls ``RandomMatching`` and ``RandomDrop``; or an object
            with the method of :class:`mmvitaccel.core.tome.matcher.Matcher`.
        reduction: Ablation: ``merge``, or ``prune`` the tokens that the class token attends to
            least.
        restore: For models whose blocks return all tokens (windows, frames): ``block`` merges in
            every block; ``end`` merges once over a run of blocks with the same windows, by the keys
            and ``r`` of the first, and the others process only merged tokens. The windows must then
            divide the map.
        adapter: A record for a model that is not supported by default.

    Returns:
        The handle. An existing ToMe is replaced with a warning.

    Raises:
        ValueError: There is no supported transformer, or an argument is invalid for it.
        RuntimeError: The model has an incompatible method.
    """
    options = merge_options(
        proportional_attention, metric, similarity, matching, reduction, restore
    )
    trace_source = flag("ToMe", "trace_source", trace_source)
    check_model("ToMe", model)
    check_adapter("ToMe", adapter)
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
    entries = {name: entry_method(name) for name in adapter.entries if hasattr(model, name)}
    swaps = [Swap(model, entries, adapter)]
    swaps += [
        Swap(block, {"forward": block_forward}, (index, spec))
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
    state = found.state
    reason = why_not_frozen(
        adapter, specs, options.matching, state.options.kv_pool_size, state.motion
    )
    if reason is not None:
        raise RuntimeError(
            f"ToMe cannot be attached to {host_class(model).__name__}: Eventful is already "
            f"attached and {reason}; remove Eventful first."
        )


def _has_runs(specs: list[BlockSpec], first_of_run: tuple[int, ...]) -> bool:
    return any(
        spec.keeps_grid and first < index
        for index, (spec, first) in enumerate(zip(specs, first_of_run))
    )


def merge_options(
    proportional: bool,
    metric: str,
    similarity: str,
    matching: Mapping[str, Any] | Matcher | None,
    reduction: str,
    restore: str,
) -> MergeOptions:
    """Check and collect arguments of :func:`apply_tome`.

    Raises:
        ValueError: One has no meaning.
    """
    given = dict(metric=metric, similarity=similarity, reduction=reduction, restore=restore)
    for name, value in given.items():
        one_of("ToMe", name, value, _CHOICES[name])
    proportional = flag("ToMe", "proportional_attention", proportional)
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
