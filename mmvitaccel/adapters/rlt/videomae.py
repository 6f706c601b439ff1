"""VideoMAE of transformers, whose own masking of patches drops the repeated ones."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.base import class_name
from mmvitaccel.adapters.hosts.transformers.common import MODELS, reads
from mmvitaccel.adapters.rlt.host import RLTAdapter, state_of
from mmvitaccel.core.rlt.runs import by_number_kept, first_of_runs, place_of_run

_refuse_attention_weights = reads(lambda model: list(model.encoder.layer))


def _forward(
    model: nn.Module,
    host: Any,
    pixel_values: Tensor,
    bool_masked_pos: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """Replaces ``forward`` on clips (B, T, C, H, W); outputs have all tokens."""
    state = state_of(model)
    _refuse_attention_weights(model, kwargs)
    if bool_masked_pos is not None:
        raise ValueError(
            f"RLT: {class_name(model)} was called with bool_masked_pos, its own masking of "
            "patches, which RLT uses itself; remove RLT (handle.remove())."
        )
    patches = model.embeddings.patch_embeddings
    size = (patches.tubelet_size, *patches.patch_size)
    if not _fits(pixel_values, size):
        return host(pixel_values, **kwargs)  # which raises its own error
    kept = first_of_runs(pixel_values.transpose(1, 2), size, state.threshold)
    state.saw(kept)
    if kept.all():
        return host(pixel_values, **kwargs)
    dropped, run = ~kept.flatten(1), place_of_run(kept)

    def some(rows: Tensor) -> Any:
        """The output for clips that keep equally many tokens, with all of their tokens."""
        out = host(pixel_values[rows], bool_masked_pos=dropped[rows], **kwargs)
        return _mapped(lambda x: x.take_along_dim(run[rows][..., None], 1), [out])

    groups = [rows for rows, _ in by_number_kept(~dropped)]
    back = torch.cat(groups).argsort()
    return _mapped(lambda *parts: torch.cat(parts)[back], [some(rows) for rows in groups])


def _fits(clips: Tensor, size: tuple[int, int, int]) -> bool:
    """Whether tubelets of that size divide clips (B, T, C, H, W)."""
    if clips.ndim != 5:
        return False
    _, frames, _, height, width = clips.shape
    return not any(side % step for side, step in zip((frames, height, width), size))


def _mapped(function: Any, outs: list[Any]) -> Any:
    """Apply a function to corresponding tensors of several outputs."""
    first = outs[0]
    if isinstance(first, Tensor):
        return function(*outs)
    if isinstance(first, dict):
        mapped = {name: _mapped(function, [out[name] for out in outs]) for name in first}
        # transformers' outputs are dataclasses and dicts at once
        return type(first)(**mapped) if is_dataclass(first) else mapped
    if isinstance(first, (list, tuple)):
        return type(first)(_mapped(function, list(parts)) for parts in zip(*outs))
    return first


ADAPTERS = (
    RLTAdapter(
        classes=(f"{MODELS}.videomae.modeling_videomae.VideoMAEModel",),
        overrides={"forward": _forward},
    ),
)
