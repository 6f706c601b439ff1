"""Backbones that load pretrained weights strictly; mmengine only warns about mismatches."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor

from mmvitaccel.arguments import init_config
from mmvitaccel.models.weights.fit import load_fitting
from mmvitaccel.models.weights.stem import adapt_stem
from mmvitaccel.models.weights.wrapped import USUAL, Choice, cut, read_weights


class PretrainedBackbone(BaseModule):
    """Base class of backbones that refuse weights of another model.

    ``init_cfg=dict(type='Pretrained', checkpoint=...)`` loads a converted file, the checkpoint of a
    detector or recognizer, or weights with the backbone's names, and resizes weights of another
    input size. ``prefix`` is the prefix of the backbone's names in the file, and ``weights`` the
    key of the weights in it; by default, both are detected.

    Args:
        init_cfg: Initialization config of mmengine.
    """

    MAY_LACK: tuple[str, ...] = ()
    """Parts of names; weights may lack all parameters whose names contain one of them."""

    STEM = "patch_embed.weight"
    """Weight of the first convolution, which is adapted to the channels of the images."""

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_config(type(self).__name__, init_cfg))

    @property
    def name(self) -> str:
        """Name of the model for messages."""
        return type(self).__name__

    def init_weights(self) -> None:
        """Initialise according to ``init_cfg``; pretrained weights must match.

        Raises:
            FileNotFoundError: The checkpoint does not exist.
            ValueError: It cannot be read, or belongs to another model.
        """
        init_cfg = self.init_cfg
        cfgs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
        pretrained = [cfg for cfg in cfgs if is_pretrained(cfg)]
        load = pretrained and not self.is_init
        try:
            # mmengine's Pretrained loads matching weights and only warns about the rest
            self.init_cfg = [cfg for cfg in cfgs if not is_pretrained(cfg)]
            super().init_weights()
        finally:
            self.init_cfg = init_cfg
        if load:
            for cfg in pretrained:
                choice = Choice(cfg.get("weights") or "", cfg.get("prefix") or "")
                self.load_pretrained(cfg["checkpoint"], choice)

    def load_pretrained(self, source: str, choice: Choice = USUAL) -> None:
        """Load the backbone's weights from a file or URL.

        Args:
            source: Path or URL of a checkpoint.
            choice: Selects the weights; ``backbone.`` and prefixes of wrappers are recognised.

        Raises:
            FileNotFoundError: The checkpoint does not exist.
            ValueError: It cannot be read, or it belongs to another model; the message is one
                sentence.
        """
        own = self.state_dict()
        weights = read_weights(source, self.known_names(), choice)
        if not choice.prefix and any(name.startswith("backbone.") for name in weights):
            weights = cut(weights, "backbone.")
        weights = self.translate(weights)
        if self.STEM in own:
            adapt_stem(weights, self.STEM, own[self.STEM], source)
        absent = load_fitting(self, weights, source, self.name, self.MAY_LACK, self.explain)
        lacking = f"; newly initialised: {', '.join(absent)}" if absent else ""
        count = sum(name in own for name in weights)
        print_log(f"{self.name}: loaded {count} tensors from '{source}'{lacking}.", "current")

    def known_names(self) -> set[str]:
        """Return the names by which weights of this backbone are recognised in a file."""
        return {prefix + name for name in self.state_dict() for prefix in ("", "backbone.")}

    def translate(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights of another layout to the backbone's names."""
        return weights

    def explain(self, weights: Mapping[str, Tensor]) -> str | None:
        """Explain mismatched weights, with advice; None if unknown."""
        if weights.keys() & self.state_dict().keys():
            return None
        return (
            f"its first name is {next(iter(weights), 'none below the prefix')!r}; convert it with "
            "tools/convert_checkpoint.py, or give a checkpoint of this model"
        )


def is_pretrained(cfg: Mapping) -> bool:
    """Whether an entry of ``init_cfg`` loads a checkpoint."""
    return cfg["type"] in ("Pretrained", PretrainedInit)
