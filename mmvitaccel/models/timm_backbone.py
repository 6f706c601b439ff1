"""timm's models by name, as backbones of any OpenMMLab config."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mmvitaccel.registry import MODELS


@MODELS.register_module()
class TIMMBackbone(BaseModule):
    """A model of timm.

    Args:
        model_name: timm's name, e.g. ``vit_base_patch16_224``.
        features_only: Give feature maps (B, C, H, W), with ``out_indices`` saying of which blocks
            or stages; else what timm's ``forward_features`` gives.
        pretrained: Let timm load its weights. A local file goes to timm as
            ``pretrained_cfg_overlay=dict(file=...)``.
        in_channels: Channels of the input; 1 for spectrograms and grey images.
        as_tuple: Give a tuple, as detectors' necks and heads take it; False gives the last map
            alone, as mmaction2's heads take it.
        init_cfg: Initialisation config of mmengine.
        **kwargs: Further arguments of ``timm.create_model``: ``img_size``, ``out_indices``,
            ``drop_path_rate``, ``dynamic_img_size`` ...

    Raises:
        ValueError: If timm has no model of that name.
    """

    def __init__(
        self,
        model_name: str,
        features_only: bool = False,
        pretrained: bool = False,
        in_channels: int = 3,
        as_tuple: bool = True,
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        import timm  # reason: needed by this backbone only

        if not timm.is_model(model_name):
            near = ", ".join(get_close_matches(model_name, timm.list_models())) or "none"
            raise ValueError(
                f"TIMMBackbone: timm {timm.__version__} has no model {model_name!r}; the nearest "
                f"of its names: {near}."
            )
        if not features_only:
            kwargs.setdefault("num_classes", 0)  # a head that nothing calls has no gradients
        self.features_only = features_only
        self.as_tuple = as_tuple
        self.timm_model = timm.create_model(
            model_name,
            features_only=features_only,
            pretrained=pretrained,
            in_chans=in_channels,
            **kwargs,
        )
        self._is_init = pretrained

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Images (B, in_channels, H, W) to a tuple of features, or to the last of them."""
        if self.features_only:
            features = tuple(self.timm_model(x))
        else:
            features = (self.timm_model.forward_features(x),)
        return features if self.as_tuple else features[-1]
