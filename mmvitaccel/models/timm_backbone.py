"""timm's models by name, as backbones of any OpenMMLab config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class TIMMBackbone(PretrainedBackbone):
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
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=...)`` takes a file of timm's
            names, which may have a head besides, or the checkpoint of a model with this backbone;
            weights that do not fit are an error.
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
        self.model_name = model_name
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

    @property
    def name(self) -> str:
        """The model, by the name that timm has for it."""
        return f"TIMMBackbone {self.model_name}"

    @property
    def STEM(self) -> str:
        """The convolution of the images, as timm says of the model."""
        first = self._of_timm("first_conv")
        return self._own_names().get(_plain(f"{first[0]}.weight"), "") if len(first) == 1 else ""

    def known_names(self) -> set[str]:
        """By timm's names too."""
        own = super().known_names()
        return own | {name.removeprefix(self._root()) for name in self.state_dict()}

    def translate(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by timm's names by those of the backbone, without what it has no part for.

        A head is left out; of feature maps also the layers behind the last of them.
        """
        own, heads = self._own_names(), {*self._of_timm("classifier"), "fc_norm"}
        if not any(_plain(name) in own for name in weights):
            return weights
        return {
            own.get(_plain(name), self._root() + name): value
            for name, value in weights.items()
            if _plain(name) in own
            or not (_is_below(name, heads) or (self.features_only and "." in name))
        }

    def explain(self, weights: Mapping[str, Tensor]) -> str | None:
        """Of another size, timm itself can fit weights to a model."""
        if not weights.keys() & self.state_dict().keys():
            return None
        own = self.state_dict()
        wrong = next((n for n, v in weights.items() if n in own and v.shape != own[n].shape), None)
        if wrong is None:
            return None
        return (
            f"'{wrong}' is {tuple(weights[wrong].shape)} in it and {tuple(own[wrong].shape)} in "
            f"{self.name}; for another image size let timm load it, pretrained=True and "
            "pretrained_cfg_overlay=dict(file=...) in place of the init_cfg, else give the right "
            "one"
        )

    def _root(self) -> str:
        """What precedes timm's names."""
        # reason: around a transformer of which it takes feature maps, timm puts a module
        names = list(self.timm_model.state_dict())
        return "timm_model." + "model." * all(name.startswith("model.") for name in names)

    def _own_names(self) -> dict[str, str]:
        """The backbone's names by timm's, as :func:`_plain` makes them."""
        root = self._root()
        return {_plain(name.removeprefix(root)): name for name in self.state_dict()}

    def _of_timm(self, key: str) -> tuple[str, ...]:
        """Names of layers that timm keeps of a model."""
        import timm

        of_timm = timm.get_pretrained_cfg(self.model_name)
        found = getattr(of_timm, key, None) or ()
        return (found,) if isinstance(found, str) else tuple(found)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Images (B, in_channels, H, W) to a tuple of features, or to the last of them."""
        if self.features_only:
            features = tuple(self.timm_model(x))
        else:
            features = (self.timm_model.forward_features(x),)
        return features if self.as_tuple else features[-1]


def _plain(name: str) -> str:
    """A name in which feature maps' ``stages_0`` is the model's ``stages.0``."""
    return name.replace("_", ".")


def _is_below(name: str, layers: Iterable[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)
