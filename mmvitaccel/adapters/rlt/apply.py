"""Run-length tokenization on a model: ``apply_rlt`` and the handle that it returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import nn

from mmvitaccel.adapters.attach import Swap, attach, link
from mmvitaccel.adapters.base import class_name, host_class, named_base
from mmvitaccel.adapters.handle import Handle
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.rlt import videomae, vivit
from mmvitaccel.adapters.rlt.host import METHOD, RLTAdapter, RLTState

ADAPTERS: tuple[RLTAdapter, ...] = (*videomae.ADAPTERS, *vivit.ADAPTERS)


@dataclass(frozen=True)
class RLTInfo:
    """What became of the tubelets in the last forward pass.

    Attributes:
        kept: Tubelets that each clip kept.
        num_tubelets: Those that it had.
    """

    kept: list[int]
    num_tubelets: int

    @property
    def dropped(self) -> float:
        """Share of the tubelets that was dropped, the mean over clips."""
        return 1 - sum(self.kept) / len(self.kept) / self.num_tubelets


class RLTHandle(Handle):
    """Steers run-length tokenization on one model.

    Attributes:
        model: The transformer that it is on.
    """

    method = METHOD
    _state: RLTState

    @property
    def threshold(self) -> float:
        """Difference up to which a patch repeats; a new value holds from the next pass on."""
        return self._state.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._state.threshold = _checked(value)

    @property
    def info(self) -> RLTInfo:
        """What became of the tubelets in this thread's last forward pass; waits for a device.

        Raises:
            RuntimeError: There was none.
        """
        kept = self._state.kept
        if kept is None:
            raise RuntimeError("RLT: no forward pass has run yet, so there is no info.")
        return RLTInfo(kept.sum((1, 2)).tolist(), kept[0].numel())


def apply_rlt(model: nn.Module, threshold: float = 0.1) -> RLTHandle:
    """Drop the patches of a clip that repeat, before the video transformer in ``model``.

    A tubelet that differs from the one before it at its place by no more than the threshold is
    left out (Choudhury et al., NeurIPS 2024). In a batch each clip keeps its own number; clips, in
    ViViT time steps, with equal numbers go through together. What the model returns has its shape:
    a dropped token has the value of the one that stands for it. The paper's embedding of lengths is
    learnt; without training, tokens have their positions only. It works in training too, and
    together with ToMe, whose ``info`` is then that of the last clips that went together.

    Keys of the state dict, parameters and classes of the package stay as they are. ``encode_step``
    and ``forward_step`` of ViViT, which are given single steps, compute all of their tokens.

    Args:
        model: VideoMAE of transformers, this package's ViViT, or a module that holds exactly one
            of them.
        threshold: Mean absolute difference of pixels, as the model is given them (after
            normalisation), up to which a patch repeats; the paper has 0.1. At 0 only equal patches
            repeat.

    Returns:
        The handle. RLT on a model that has it already replaces what was there, with a warning.

    Raises:
        ValueError: There is no such model, or the threshold is negative or no number.
        RuntimeError: A method that it cannot be together with is on the model.
    """
    threshold = _checked(threshold)
    model = locate(model)[1]
    known = [name for adapter in ADAPTERS for name in adapter.classes]
    adapter = next((a for a in ADAPTERS if named_base(model, a.classes) is not None), None)
    if adapter is None:
        raise ValueError(
            f"RLT: {class_name(model)} is none of the video transformers from which repeated "
            f"patches can be left out, {', '.join(known)}."
        )
    find_adapter(model)  # reason: it refuses versions that have other parts
    before = link(model, METHOD)
    attach(model, METHOD, [Swap(model, adapter.overrides)], RLTState(threshold))
    if before is not None:
        warnings.warn(
            f"RLT was on this {host_class(model).__name__} with threshold="
            f"{before.state.threshold} and is replaced by threshold={threshold}.",
            stacklevel=2,
        )
    return RLTHandle(model)


def _checked(threshold: float) -> float:
    if not threshold >= 0:
        raise ValueError(f"RLT: threshold={threshold!r} must be a number, at least 0.")
    return float(threshold)
