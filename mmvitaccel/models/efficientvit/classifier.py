"""What turns EfficientViT into an image classifier: its head's first half."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitaccel.arguments import init_config, whole_number
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class EfficientViTPooling(BaseModule):
    """Mean over the map and a BatchNorm; a linear head (``LinearClsHead`` of mmpretrain) follows.

    Args:
        in_channels: Channels of the last map.
        init_cfg: mmengine's.

    Raises:
        ValueError: ``in_channels`` is no whole number of at least 1.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_config("EfficientViTPooling", init_cfg))
        in_channels = whole_number("EfficientViTPooling", "in_channels", in_channels, least=1)
        self.bn = nn.BatchNorm1d(in_channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Maps, the last (B, in_channels, H, W), to a tuple of one (B, in_channels)."""
        return (self.bn(inputs[-1].mean(dim=(2, 3))),)
