"""First half of EfficientViT's classification head: pooling and BatchNorm."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitaccel.arguments import init_config, whole_number
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class EfficientViTPooling(BaseModule):
    """Global average pooling and BatchNorm.

    A linear head follows, such as mmpretrain's ``LinearClsHead``.

    Args:
        in_channels: Channels of the last map.
        init_cfg: Initialization config of mmengine.

    Raises:
        ValueError: ``in_channels`` is not a whole number of at least 1.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_config("EfficientViTPooling", init_cfg))
        in_channels = whole_number("EfficientViTPooling", "in_channels", in_channels, least=1)
        self.bn = nn.BatchNorm1d(in_channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last map.

        Args:
            inputs: Maps, the last of which is (B, in_channels, H, W).

        Returns:
            A tuple with one tensor (B, in_channels).
        """
        return (self.bn(inputs[-1].mean(dim=(2, 3))),)
