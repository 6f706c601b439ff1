"""Any timm model as a backbone in an OpenMMLab config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from mmvitaccel.arguments import flag, text, whole_number
from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class TIMMBackbone(PretrainedBackbone):
    """A backbone from timm.

    Args:
        model_name: timm's name, e.g. ``vit_base_patch16_224``.
        features_only: Return feature maps (B, C, H, W) of the blocks or stages in ``out_indices``;
            otherwise the output of timm's ``forward_features``.
        pretrained: Let timm load its weights. For a local file, use
            ``pretrained_cfg_overlay=dict(file=...)``.
        in_channels: Channels of the input; 1 for spectrograms and grey images.
        as_tuple: Return a tuple, as necks and heads of detectors expect; False returns only the
            last map, as mmaction2's heads expect.
        init_cfg: Initialization config of mmengine. ``dict(type='Pretrained', checkpoint=...)``
            loads a file with timm's names, with or without a head, or the checkpoint of a model
            with this backbone. Other weights raise an error.
        **kwargs: Further arguments of ``timm.create_model``: ``img_size``, ``out_indices``,
            ``drop_path_rate``, ``dynamic_img_size`` ...

    Raises:
        ValueError: timm has no model with this name, or an argument is out of range.
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
        import timm  # Needed by this backbone only

        owner = "TIMMBackbone"
        model_name = text(owner, "model_name", model_name, what="the name of a model of timm")
        features_only = flag(owner, "features_only", features_only)
        pretrained = flag(owner, "pretrained", pretrained)
        in_channels = whole_number(owner, "in_channels", in_channels, least=1)
        if not timm.is_model(model_name):
            near = ", ".join(get_close_matches(model_name, timm.list_models())) or "none"
            raise ValueError(
                f"TIMMBackbone: timm {timm.__version__} has no model {model_name!r}; similar "
                f"names: {near}."
            )
        if not features_only:
            kwargs.setdefault("num_classes", 0)  # an unused head would have no gradients
        self.model_name = model_name
        self.features_only = features_only
        self.as_tuple = flag(owner, "as_tuple", as_tuple)
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
        """The model's name in timm."""
        return f"TIMMBackbone {self.model_name}"

    @property
    def STEM(self) -> str:
        """Weight of the first convolution, which timm's config of the model names."""
        first = self._of_timm("first_conv")
        return self._own_names().get(_plain(f"{first[0]}.weight"), "") if len(first) == 1 else ""

    def known_names(self) -> set[str]:
        """Names of the backbone, including timm's."""
        own = super().known_names()
        return own | {name.removeprefix(self._root()) for name in self.state_dict()}

    def translate(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert timm's names to the backbone's, without weights of missing parts.

        The head is left out, and for feature maps the layers after the last map.
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
        """Explain mismatches; timm itself can adapt weights to another image size."""
        if not weights.keys() & self.state_dict().keys():
            return None
        own = self.state_dict()
        wrong = next((n for n, v in weights.items() if n in own and v.shape != own[n].shape), None)
        if wrong is None:
            return None
        return (
            f"'{wrong}' is {tuple(weights[wrong].shape)} in it and {tuple(own[wrong].shape)} in "
            f"{self.name}; if the image size differs, let timm load it with pretrained=True and "
            "pretrained_cfg_overlay=dict(file=...) instead of init_cfg, otherwise give the right "
            "checkpoint"
        )

    def _root(self) -> str:
        """Prefix of timm's names in the state dict."""
        # timm wraps a transformer in another module to return its feature maps
        names = list(self.timm_model.state_dict())
        return "timm_model." + "model." * all(name.startswith("model.") for name in names)

    def _own_names(self) -> dict[str, str]:
        """Map timm's names, normalised by :func:`_plain`, to the backbone's names."""
        root = self._root()
        return {_plain(name.removeprefix(root)): name for name in self.state_dict()}

    def _of_timm(self, key: str) -> tuple[str, ...]:
        """Names of layers under a key of timm's config of the model."""
        import timm

        of_timm = timm.get_pretrained_cfg(self.model_name)
        found = getattr(of_timm, key, None) or ()
        return (found,) if isinstance(found, str) else tuple(found)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Compute features.

        Args:
            x: Images (B, in_channels, H, W).

        Returns:
            With ``features_only``, a map (B, C, h, w) for each of ``out_indices``; otherwise the
            output of timm's ``forward_features``. A tuple, or without ``as_tuple`` only its last
            entry.
        """
        if self.features_only:
            features = tuple(self.timm_model(x))
        else:
            features = (self.timm_model.forward_features(x),)
        return features if self.as_tuple else features[-1]


def _plain(name: str) -> str:
    """Normalise a name: ``stages_0``, as in feature extractors, and ``stages.0`` become equal."""
    return name.replace("_", ".")


def _is_below(name: str, layers: Iterable[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)
