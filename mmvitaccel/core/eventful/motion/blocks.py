"""The shift that most blocks of a picture share, and how many of them share it.

Phase correlation of whole pictures finds one shift, whatever else moves. Here it is done block by
block: in a zoom, a rotation or a parallax no shift is shared by many of them, and where an object
fills the middle, the background around it has more of them. Pictures are made small first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mmvitaccel.core.eventful.motion.estimate import Look, overlap, peaks_of, weights

# Shorter side of the small pictures, side of a block, and pixels from one block to the next.
SIDE, BLOCK, STEP = 112, 32, 16
# Standard deviation of a block's peak, in pixels of the small picture: noise is finer than that.
PEAK = 1.5
# A block counts if its peak has that height (of 1); of two pictures of noise, hardly one has.
SURE = 0.45
# The picture is judged if this share of its blocks counts.
ENOUGH = 0.1
# Blocks share a shift if theirs differ by at most so many pixels of the small picture,
CLOSE = 0.2
# or by this share of it: a background with some depth still goes with one shift.
SHARE = 0.2


class Shared(NamedTuple):
    """What blocks moved by besides a shift that is known.

    Attributes:
        down: Pixels (of the whole picture) that most blocks moved further down.
        right: Pixels that they moved further right.
        share: Of the blocks that count, how many did; 1 where too few count to tell.
    """

    down: float
    right: float
    share: float


def shared_shift(now: Look, then: Look, by: tuple[int, int]) -> Shared:
    """What most blocks moved by, besides a shift ``by`` (down, right) in whole pixels.

    Synchronises with the device, once.
    """
    pool = max(round(min(now.grey.shape) / SIDE), 1)
    pictures = [part[None] for part in overlap(now.grey, then.grey, by)]
    if min(pictures[0].shape[1:]) < BLOCK * pool:
        return Shared(0.0, 0.0, 1.0)
    here, there = (_phases(avg_pool2d(picture, pool)[0]) for picture in pictures)
    weight = weights((BLOCK, BLOCK), here.device, PEAK)
    found = peaks_of(torch.fft.irfft2(here * there.conj() * weight, (BLOCK, BLOCK)), PEAK)
    # Of a camera that moves down, what is seen moves up
    moved, sure = -found[:, :2], found[:, 2] > SURE
    reach = SHARE * (moved + moved.new_tensor(by) / pool).norm(dim=1).clamp_min(CLOSE / SHARE)
    close = ((moved[:, None] - moved).norm(dim=2) <= reach[:, None]) & sure & sure[:, None]
    votes, count = close.sum(1), sure.sum()
    best = votes.argmax()
    common = pool * (moved * close[best, :, None]).sum(0) / votes[best].clamp_min(1)
    share = torch.where(count >= ENOUGH * len(sure), votes[best] / count.clamp_min(1), 1.0)
    return Shared(*torch.cat((common, share[None])).tolist())


def _phases(small: Tensor) -> Tensor:
    """Phases of the blocks of a small picture (height, width), (blocks, BLOCK, BLOCK // 2 + 1)."""
    blocks = small.unfold(0, BLOCK, STEP).unfold(1, BLOCK, STEP).flatten(0, 1)
    fade = torch.hann_window(BLOCK, periodic=False, device=small.device)
    blocks = (blocks - blocks.mean((1, 2), keepdim=True)) * fade[:, None] * fade
    return torch.sgn(torch.fft.rfft2(blocks))
