"""Which tubelets repeat, against a search tubelet by tubelet."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitaccel.core.rlt.runs import by_number_kept, first_of_runs, place_of_run

TUBELET = (2, 4, 4)


def clips(batch, steps, levels, seed=0):
    """Clips (B, 3, 2 * S, 8, 12) whose tubelets take few values, so that many repeat."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(levels, (batch, 1, steps, 2, 3), generator=generator).float()
    for dim, size in zip((2, 3, 4), TUBELET):
        values = values.repeat_interleave(size, dim)
    texture = torch.rand(1, 3, 2, 8, 12, generator=generator)
    return values + texture.repeat(1, 1, steps, 1, 1)


def naive(clips, threshold):
    """What is kept, and the index among what is kept that stands for each tubelet."""
    batch, _, frames, height, width = clips.shape
    t, h, w = TUBELET
    steps, rows, columns = frames // t, height // h, width // w
    kept, place = [], []
    for clip in clips:
        own, stands, first = [], {}, {}
        for s in range(steps):
            for y in range(rows):
                for x in range(columns):
                    cut = clip[:, s * t : s * t + t, y * h : y * h + h, x * w : x * w + w]
                    before = first.get((y, x))
                    new = before is None or float((cut - before).abs().mean()) > threshold
                    if new:
                        first[y, x], stands[y, x] = cut, sum(own)
                    own.append(new)
                    place.append(stands[y, x])
        kept.append(own)
    return (
        torch.tensor(kept).view(batch, steps, rows * columns),
        torch.tensor(place).view(batch, -1),
    )


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 5),
    levels=st.integers(1, 5),
    threshold=st.sampled_from([0.0, 1.5, 2.5]),
    seed=st.integers(0, 99),
)
def test_against_a_search_tubelet_by_tubelet(batch, steps, levels, threshold, seed):
    given_clips = clips(batch, steps, levels, seed)
    kept, place = naive(given_clips, threshold)
    assert torch.equal(first_of_runs(given_clips, TUBELET, threshold), kept)
    assert torch.equal(place_of_run(kept), place)
    seen = []
    for rows, places in by_number_kept(kept.flatten(1)):
        for row, own in zip(rows.tolist(), places):
            assert own.tolist() == kept[row].flatten().nonzero()[:, 0].tolist()
            seen.append(row)
    assert sorted(seen) == list(range(batch))


def test_a_slow_change_ends_the_run():
    ramp = torch.arange(6.0).repeat_interleave(2).view(1, 1, 12, 1, 1).expand(1, 3, 12, 4, 4)
    kept = first_of_runs(ramp, TUBELET, 1.0)[0, :, 0]
    assert kept.tolist() == [True, False, True, False, True, False]


def test_what_is_not_a_number_is_kept():
    clip = torch.zeros(1, 3, 6, 4, 4)
    clip[0, 0, 3, 1, 1] = float("nan")
    assert first_of_runs(clip, TUBELET, 1e9)[0, :, 0].tolist() == [True, True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_every_kind_of_number(dtype):
    given_clips = clips(2, 4, 3).to(dtype)
    assert torch.equal(
        first_of_runs(given_clips, TUBELET, 0.0),
        naive(given_clips.double(), 0.0)[0],
    )
