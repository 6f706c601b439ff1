"""This package's ViViT: each time step is encoded from its kept tubelets only.

The spatial encoder sees one step at a time, so a dropped tubelet has no token in its step; in a
transformer over the whole clip, the token that represents it would still be attended to. A step
without kept tubelets gets the class token of the previous step; its temporal position is added
later.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.rlt.host import RLTAdapter, state_of
from mmvitaccel.core.rlt.runs import by_number_kept, first_of_runs


def _forward_spatial(model: nn.Module, host: Any, x: Tensor) -> Tensor:
    """Replaces ``forward_spatial``: clips (B, C, T, H, W) to (B, S, C)."""
    state = state_of(model)
    tokens, grid_size = model.embed(x)
    kept = first_of_runs(x, model.tubelet_size, state.threshold)
    state.saw(kept)
    if kept.all():
        return model.encode_steps(tokens, grid_size)
    batch, steps, _ = kept.shape
    tokens, encoded = tokens.flatten(0, 1), []  # (B * S, N, C)
    place = torch.empty(batch * steps, dtype=torch.int64, device=x.device)
    for rows, places in by_number_kept(kept.flatten(0, 1)):
        if places.shape[1]:
            place[rows] = torch.arange(len(rows), device=x.device) + sum(map(len, encoded))
            encoded.append(model.encode_step(tokens[rows], grid_size, places))
    # A step without kept tubelets has no place; it uses that of the last step with some
    numbers = torch.arange(steps, device=x.device)
    source = torch.where(kept.any(2), numbers, 0).cummax(1).values  # (B, S)
    return torch.cat(encoded)[place.view(batch, steps).gather(1, source)]


ADAPTERS = (
    RLTAdapter(
        classes=("mmvitaccel.models.vivit.backbone.ViViT",),
        overrides={"forward_spatial": _forward_spatial},
    ),
)
