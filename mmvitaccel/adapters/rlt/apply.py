"""``apply_rlt`` and the handle that it returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import nn

from mmvitaccel.adapters.attach import Swap, attach, link
from mmvitaccel.adapters.base import class_name, host_class, named_base
from mmvitaccel.adapters.given import check_model
from mmvitaccel.adapters.handle import Handle
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.rlt import videomae, vivit
from mmvitaccel.adapters.rlt.host import METHOD, RLTAdapter, RLTState
from mmvitaccel.arguments import number

ADAPTERS: tuple[RLTAdapter, ...] = (*videomae.ADAPTERS, *vivit.ADAPTERS)


@dataclass(frozen=True)
class RLTInfo:
    """Number of kept tubelets in the last forward pass.

    Attributes:
        kept: Kept tubelets of each clip.
        num_tubelets: All tubelets of a clip.
    """

    kept: list[int]
    num_tubelets: int

    @property
    def dropped(self) -> float:
        """Share of tubelets that were dropped, the mean over clips."""
        return 1 - sum(self.kept) / len(self.kept) / self.num_tubelets


class RLTHandle(Handle):
    """Controls run-length tokenization on one model.

    Attributes:
        model: The transformer to which it is attached.
    """

    method = METHOD
    _state: RLTState

    @property
    def threshold(self) -> float:
        """Difference up to which a patch repeats; a new value holds from the next forward pass."""
        return self._state.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.check_attached("threshold cannot be set")
        self._state.threshold = _checked(value)

    @property
    def info(self) -> RLTInfo:
        """Counts of this thread's last forward pass; synchronises with the device.

        Raises:
            RuntimeError: There was none.
        """
        kept = self._state.kept
        if kept is None:
            raise RuntimeError("RLT: no forward pass has run yet, so there is no info.")
        return RLTInfo(kept.sum((1, 2)).tolist(), kept[0].numel())


def apply_rlt(model: nn.Module, threshold: float = 0.1) -> RLTHandle:
    """Drop the patches of a clip that repeat, before the video transformer in ``model``.

    A tubelet that differs from the first one of its run by no more than the threshold is dropped
    (Choudhury et al., NeurIPS 2024). Each clip of a batch keeps its own number of tokens; clips (in
    ViViT, time steps) with equal numbers are computed together. The model's outputs keep their
    shape: a dropped token has the value of the one that represents it. The paper's embedding of
    lengths is learnt; here, tokens only have their positions. RLT also works in training, and
    together with ToMe, whose ``info`` is then of the last group of clips.

    Keys of the state dict, parameters and the model's class stay as they are. ``encode_step`` and
    ``forward_step`` of ViViT, which get single steps, compute all tokens.

    Args:
        model: VideoMAE of transformers, this package's ViViT, or a module that contains exactly one
            of them.
        threshold: Mean absolute difference of pixels, after normalisation, up to which a patch
            repeats; 0.1 in the paper. At 0, only equal patches repeat.

    Returns:
        The handle. If RLT is already attached, it is replaced, with a warning.

    Raises:
        ValueError: The model is not supported, or the threshold is negative or NaN.
        RuntimeError: A method that cannot be combined with RLT is attached to the model.
    """
    threshold = _checked(threshold)
    check_model("RLT", model)
    model = locate(model)[1]
    known = [name for adapter in ADAPTERS for name in adapter.classes]
    adapter = next((a for a in ADAPTERS if named_base(model, a.classes) is not None), None)
    if adapter is None:
        raise ValueError(
            f"RLT does not support {class_name(model)}; supported models: {', '.join(known)}."
        )
    find_adapter(model)  # It refuses versions of the model that have other parts
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
    return number("RLT", "threshold", threshold, least=0, or_infinite=True)
