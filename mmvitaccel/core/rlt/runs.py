"""Run-length tokenization, "Don't Look Twice" (NeurIPS 2024): which patches of a clip repeat.

A tubelet that looks like the previous one at the same place is dropped before the network; the
first tubelet of such a run represents all of it. The paper also adds a learnt embedding of the
run's length to its token; models that were trained without it only get the position.

The paper compares neighbours in time: the first frame of one tubelet with the last frame of the
next. Here, whole tubelets are compared with the first one of the run, so that a slow change adds up
and ends the run, where neighbours would never differ enough.

Shapes: B clips, T frames, S steps in time of N tubelets each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def first_of_runs(clips: Tensor, tubelet_size: tuple[int, int, int], threshold: float) -> Tensor:
    """Find the tubelets that begin a run, which are kept.

    Args:
        clips: (B, C, T, H, W), in the unit of the threshold.
        tubelet_size: Frames, height and width of a tubelet, which divide those of the clips.
        threshold: Largest mean absolute difference at which a tubelet repeats; at 0, only equal
            tubelets repeat.

    Returns:
        (B, S, N) bool, all true in the first step.
    """
    frames, *patch = tubelet_size
    steps = clips.unflatten(2, (-1, frames)).unbind(2)  # S of (B, C, t, H, W)
    first = steps[0].float()
    at_start = first.new_ones((len(first), 1, *(s // p for s, p in zip(first.shape[3:], patch))))
    kept = [at_start.flatten(1).bool()]
    for step in steps[1:]:
        step = step.float()
        difference = (step - first).abs().mean((1, 2), keepdim=True)[:, 0]  # (B, 1, H, W)
        # Negated, so that NaN is kept
        new = (F.avg_pool2d(difference, tuple(patch)) <= threshold).logical_not()
        kept.append(new.flatten(1))
        begins = F.interpolate(new.float(), size=difference.shape[2:]).bool()  # by pixel
        first = torch.where(begins[:, :, None], step, first)
    return torch.stack(kept, 1)


def place_of_run(kept: Tensor) -> Tensor:
    """For each tubelet, the index of the one that represents it, among the clip's kept tubelets.

    Args:
        kept: (B, S, N) bool, all true in the first step.

    Returns:
        (B, S * N) int64.
    """
    _, steps, num = kept.shape
    step = torch.arange(steps, device=kept.device)[None, :, None]
    begin = torch.where(kept, step, 0).cummax(1).values * num
    begin = begin + torch.arange(num, device=kept.device)
    order = kept.flatten(1).cumsum(1) - 1
    return order.gather(1, begin.flatten(1))


def by_number_kept(kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Group sequences that keep equally many tokens, to run each group as a batch.

    Synchronises with the device, because the counts must be known before the network runs.

    Args:
        kept: (B, N) bool.

    Yields:
        Indices of the sequences (b,), and the positions that they keep, in order (b, M).
    """
    counts = kept.sum(1)
    for count in counts.unique().tolist():
        rows = (counts == count).nonzero()[:, 0]
        yield rows, kept[rows].nonzero()[:, 1].view(len(rows), count)
