"""Backbones whose pretrained weights have to fit: mmengine's own loading only warns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from mmvitaccel.models.weights.checkpoint import read_state_dict


class PretrainedBackbone(BaseModule):
    """Base of backbones that refuse weights of another model.

    ``init_cfg=dict(type='Pretrained', checkpoint=...)`` takes a converted file, a detector's or
    recogniser's checkpoint, or weights by the backbone's own names, and resizes what is of another
    input size.
    """

    MAY_LACK: tuple[str, ...] = ()
    """Endings or beginnings of names that weights may lack altogether, each as a whole kind."""

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; pretrained weights must fit.

        Raises:
            FileNotFoundError: The checkpoint does not exist.
            ValueError: It cannot be read, or is of another model.
        """
        init_cfg = self.init_cfg
        cfgs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
        pretrained = [cfg for cfg in cfgs if is_pretrained(cfg)]
        load = pretrained and not self.is_init
        try:
            # reason: mmengine's own Pretrained loads what it can and only warns of the rest
            self.init_cfg = [cfg for cfg in cfgs if not is_pretrained(cfg)]
            super().init_weights()
        finally:
            self.init_cfg = init_cfg
        if load:
            for cfg in pretrained:
                self.load_pretrained(cfg["checkpoint"], cfg.get("prefix") or "")

    def load_pretrained(self, source: str, prefix: str = "") -> None:
        """Load the backbone's weights from a file or address.

        Args:
            source: Path or http(s) address of a checkpoint.
            prefix: What precedes the backbone's names in it; ``backbone.`` is recognised.

        Raises:
            FileNotFoundError: The checkpoint does not exist.
            ValueError: It cannot be read, or is of another model; says in one sentence why.
        """
        load_fitting(self, source, prefix, self.MAY_LACK)


def load_fitting(
    model: nn.Module, source: str, prefix: str = "", may_lack: Sequence[str] = ()
) -> None:
    """Load weights into a model that has to find all of its own, and no others in its parts.

    Args:
        model: The model; it resizes what it can in ``_load_from_state_dict``.
        source: Path or address of the weights.
        prefix: What precedes the model's names; by default ``backbone.`` where some name begins
            with it.
        may_lack: Parts of names that weights may lack altogether; those parameters keep their
            values.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: It cannot be read, or is of another model.
    """
    held = read_state_dict(source)
    if not prefix and any(name.startswith("backbone.") for name in held):
        prefix = "backbone."
    held = {name[len(prefix) :]: v for name, v in held.items() if name.startswith(prefix)}
    name, own = type(model).__name__, model.state_dict()
    if not own.keys() & held.keys():
        raise ValueError(
            f"{source}: it holds no weights of {name} (its first name is "
            f"{next(iter(held), 'none below the prefix')!r}); convert it with "
            "tools/convert_checkpoint.py, or give the checkpoint of this model."
        )
    absent = [part for part in may_lack if not any(part in key for key in held)]
    missing = [k for k in own if k not in held and not any(part in k for part in absent)]
    parts = {key.partition(".")[0] for key in own}
    surplus = [k for k in held if k not in own and k.partition(".")[0] in parts]
    if missing or surplus:
        what = (
            f"it lacks {len(missing)} of the {len(own)} tensors of the model's {name}, first "
            f"'{missing[0]}'"
            if missing
            else f"its '{surplus[0]}' is in no part of the model's {name}"
        )
        raise ValueError(
            f"{source}: {what}; it is of another model, give the right one or set the backbone's "
            "arguments to its own."
        )
    fitting = {key: value for key, value in held.items() if key in own}
    try:
        model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{source}: {_mismatch(model, fitting, error)}") from error
    lacking = f"; it has no {', '.join(absent)}, which start anew" if absent else ""
    print_log(f"{name}: loaded {len(fitting)} tensors from '{source}'{lacking}.", logger="current")


def _mismatch(model: nn.Module, weights: Mapping, error: RuntimeError) -> str:
    """Name the first weight of another shape that could not be resized: of another width."""
    for name, value in model.state_dict().items():
        found = weights.get(name)
        if found is not None and found.shape != value.shape and f" {name}:" in str(error):
            return (
                f"'{name}' is {tuple(found.shape)} in it and {tuple(value.shape)} in the model's "
                f"{type(model).__name__}; give the checkpoint of this model or set the backbone's "
                "arguments to its own."
            )
    return " ".join(str(error).split())


def is_pretrained(cfg: Mapping) -> bool:
    """Whether an entry of ``init_cfg`` asks for a checkpoint."""
    return cfg["type"] in ("Pretrained", PretrainedInit)
