"""One budget of tokens for all streams of a batch, handed out by need."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import COPIED


class SharedTopK:
    """The k * B largest errors of the B streams of a batch: a busy stream borrows from quiet ones.

    Errors of all streams are norms at the same gate of one model, so that they are in one unit. A
    batch costs what it costs with :class:`TopK`; a stream alone gets k. Frames that are computed
    whole take no part. On CUDA it waits for the device, to know how many tokens each stream got.

    Args:
        k: Tokens let through of a stream, the mean over the batch; more than there are means all.
        floor: Tokens that each stream gets of its largest errors, whatever the others need; at
            most k are given in this way.

    Attributes:
        shared: True: such a policy is asked once for all streams.

    Raises:
        ValueError: k is below 1, the floor below 0, or one is no whole number.
    """

    shared: ClassVar[bool] = True

    def __init__(self, k: int, floor: int = 0) -> None:
        self.k = k
        self.floor = _whole("floor", floor, 0)

    @property
    def k(self) -> int:
        """Tokens let through of a stream, the mean; a new value holds from the next frame on."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        self._k = _whole("k", value, 1)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) bool, of which B * min(k, N) are true."""
        batch, k = len(error), self.most(error.shape[1])
        own = min(self.floor, k)
        mask = torch.zeros_like(error, dtype=torch.bool)
        if own:
            mask.scatter_(1, error.topk(own, dim=1, sorted=False).indices, True)
            error = error.masked_fill(mask, -torch.inf)
        largest = error.flatten().topk(batch * (k - own), sorted=False).indices
        mask.view(-1).index_fill_(0, largest, True)
        return mask

    def most(self, num_tokens: int) -> int:
        """What a stream has of its own; what others leave may come on top."""
        return min(self.k, num_tokens)

    def __repr__(self) -> str:
        return f"SharedTopK(k={self.k}{f', floor={self.floor}' if self.floor else ''})"


COPIED.add(SharedTopK)


def _whole(name: str, value: int, least: int) -> int:
    """The value, if it is a whole number of tokens."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(
            f"SharedTopK: {name}={value!r} must be a whole number of tokens, at least {least}."
        )
    return int(value)
