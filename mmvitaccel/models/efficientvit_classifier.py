"""What turns EfficientViT into an image classifier: its head's first half, and weights for it."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitaccel.models.efficientvit_weights import from_timm_key
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class EfficientViTPooling(BaseModule):
    """Mean over the map and a BatchNorm; a linear head (``LinearClsHead`` of mmpretrain) follows.

    Args:
        in_channels: Channels of the last map.
        init_cfg: mmengine's.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.bn = nn.BatchNorm1d(in_channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Maps, the last (B, in_channels, H, W), to a tuple of one (B, in_channels)."""
        return (self.bn(inputs[-1].mean(dim=(2, 3))),)


def classifier_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a whole released classifier under the names of one built from a config.

    Args:
        state_dict: Microsoft's ``efficientvit_m*``, or timm's.

    Returns:
        ``backbone.*``, ``neck.bn.*`` and ``head.fc.*``.

    Raises:
        ValueError: If there is no head of EfficientViT among them.
    """
    weights = {}
    heads = {"head.bn.": "neck.bn.", "head.l.": "head.fc."}
    timm = any(key.startswith("stages.") for key in state_dict)
    for key, value in state_dict.items():
        name = from_timm_key(key) if timm else key
        prefix = next((prefix for prefix in heads if name.startswith(prefix)), None)
        name = f"backbone.{name}" if prefix is None else heads[prefix] + name[len(prefix) :]
        if not name.endswith("attention_bias_idxs"):
            weights[name] = value
    if "head.fc.weight" not in weights:
        raise ValueError(
            "the weights have no head of an EfficientViT classifier (head.bn, head.l); give a "
            "released ImageNet model."
        )
    return weights
