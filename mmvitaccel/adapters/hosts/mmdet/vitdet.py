"""ViTDet of a checkout of mmdet (``projects/ViTDet``); mmdet's wheels do not contain it."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.window_map import map_spec

_MODULE = "projects.ViTDet.vitdet.vit"


def _drop(block: nn.Module, y: Tensor) -> Tensor:
    return block.drop_path(y)


ADAPTERS = (
    ViTAdapter(
        name="mmdet projects/ViTDet",
        classes=(f"{_MODULE}.ViT",),
        blocks=lambda model: list(model.blocks),
        specs=(
            map_spec([f"{_MODULE}.Block"], [f"{_MODULE}.Attention"], finish1=_drop, finish2=_drop),
        ),
        prefix=lambda model: (),
        entries={"forward": lambda model: [len(model.blocks) - 1]},
    ),
)
