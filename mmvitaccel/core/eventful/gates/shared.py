"""One budget of tokens for all streams of a batch."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmvitaccel.arguments import whole_number
from mmvitaccel.core.eventful.gates.policy import COPIED


class SharedTopK:
    """Selects the k * B largest errors of the B streams of a batch together.

    Busy streams get tokens that quiet streams do not need. The errors of all streams are norms at
    the same gate of one model, so they are comparable. A batch costs as much as with :class:`TopK`,
    and a single stream gets k. Completely computed frames do not take part. On CUDA, it
    synchronises with the device to read the number of tokens per stream.

    Args:
        k: Number of tokens per stream, as a mean over the batch; all if it is larger than their
            number.
        floor: Number of tokens with the largest errors that are guaranteed to each stream; limited
            to k.

    Attributes:
        shared: True: the policy is called once for all streams.

    Raises:
        ValueError: k is below 1, the floor below 0, or one is not a whole number.
    """

    shared: ClassVar[bool] = True

    def __init__(self, k: int, floor: int = 0) -> None:
        self.k = k
        self.floor = whole_number("SharedTopK", "floor", floor, least=0, of="tokens")

    @property
    def k(self) -> int:
        """Mean number of tokens per stream; a new value applies from the next frame on."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        self._k = whole_number("SharedTopK", "k", value, least=1, of="tokens")

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
        """Share of one stream, without the tokens that others do not need."""
        return min(self.k, num_tokens)

    def __repr__(self) -> str:
        return f"SharedTopK(k={self.k}{f', floor={self.floor}' if self.floor else ''})"


COPIED.add(SharedTopK)
