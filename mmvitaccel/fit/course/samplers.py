"""Check for infinite samplers in loops that wait for the sampler's end."""

from __future__ import annotations

from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.registry import type_name

_ENDLESS = ("InfiniteSampler", "MultiSourceSampler", "GroupMultiSourceSampler")
_WAITING = ("", "EpochBasedTrainLoop", "ValLoop", "TestLoop")


def check_samplers(cfg: Config, *splits: str) -> None:
    """Refuse an infinite sampler in a loop that iterates over the data set once.

    Args:
        cfg: A config.
        *splits: ``train``, ``val``, ``test``; disabled ones are ignored.

    Raises:
        UserError: If the first epoch, validation or test would never end.
    """
    for split in splits:
        loop, loader = cfg.get(f"{split}_cfg"), cfg.get(f"{split}_dataloader") or {}
        if loop is None or type_name(loop) not in _WAITING or loop.get("by_epoch") is False:
            continue
        sampler = type_name(loader.get("sampler") or {})
        if sampler in _ENDLESS:
            what = "epoch" if split == "train" else "pass"
            iterations = (
                ", or train by iterations (train_cfg.type=IterBasedTrainLoop)"
                if split == "train"
                else ""
            )
            raise UserError(
                f"{split}_dataloader.sampler is {sampler}, which never ends, but {split}_cfg waits "
                f"for the end of the data set, so the first {what} would never end; set "
                f"{split}_dataloader.sampler.type=DefaultSampler{iterations}."
            )
