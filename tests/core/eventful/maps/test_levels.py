"""Levels brought up to date against levels computed whole, on maps of awkward sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopK
from mmvitaccel.core.eventful.maps import levels, rows
from mmvitaccel.core.eventful.maps.levels import LevelSteps, MapMemory, start_level
from mmvitaccel.core.eventful.maps.rows import reached, rows_where, squares_with_any

CHANNELS = 6


def make_steps(cells=1, pixels=1, bias=False):
    """A level whose squares of ``cells`` cells become ``pixels`` pixels a side."""
    torch.manual_seed(cells * 10 + pixels)
    grow = nn.ConvTranspose2d(CHANNELS, 5, pixels, stride=pixels).requires_grad_(False)
    conv = nn.Conv2d(5, 4, 3, padding=1, bias=bias).requires_grad_(False)
    steps = LevelSteps(
        spread=lambda x: grow(F.max_pool2d(x, cells)).relu(),
        weight=conv.weight,
        bias=conv.bias,
        finish=lambda y: y * torch.arange(1.0, 5)[:, None, None].tanh(),
        cells=cells,
        pixels=pixels,
    )
    return steps, lambda x: steps.finish(conv(steps.spread(x))).permute(0, 2, 3, 1)


LEVELS = [(1, 1), (1, 2), (1, 4), (2, 1), (3, 2)]
SIZES = [(7, 10), (6, 6), (3, 3), (1, 8)]


def changing(batch, size, frames, share, seed=0):
    """Maps of which a share of the cells changes from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, CHANNELS, *size, generator=generator)
    for _ in range(frames):
        yield x
        moves = torch.rand(batch, 1, *size, generator=generator) < share
        x = torch.where(moves, torch.randn(x.shape, generator=generator), x)


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_a_level_is_that_of_the_whole_map(cells, pixels, size, share):
    if min(size) < cells:
        pytest.skip("no square of cells fits")
    steps, whole = make_steps(cells, pixels, bias=True)
    memory = None
    for x in changing(2, size, 6, share):
        if memory is None:
            memory = MapMemory.start(x)
        else:
            memory.take(x, Threshold(0.0))
        torch.testing.assert_close(memory.level(0, steps, x), whole(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_a_level_is_that_of_the_gated_map(cells, pixels, k):
    steps, whole = make_steps(cells, pixels)
    seen = None
    for x in changing(1, (7, 9), 8, 0.5):
        if seen is None:
            memory, seen = MapMemory.start(x), x.clone()
        else:
            error = (seen - x).norm(dim=1).flatten()
            index = error.topk(k).indices
            seen.flatten(2)[..., index] = x.flatten(2)[..., index]
            memory.take(x, TopK(k))
        level = memory.level(0, steps, x)
        torch.testing.assert_close(level, whole(seen), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", [Threshold(0.0), TopK(3), Always()], ids=repr)
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_without_reading_counts_from_the_device(monkeypatch, cells, pixels, policy):
    steps, _ = make_steps(cells, pixels)
    maps, found = list(changing(2, (8, 9), 6, 0.05)), {}
    for free in (True, False):
        for module in (rows, levels):
            monkeypatch.setattr(module, "reading_is_free", lambda device, free=free: free)
        memory = MapMemory.start(maps[0])
        found[free] = [memory.level(0, steps, maps[0]).clone()]
        for x in maps[1:]:
            memory.take(x, policy)
            found[free].append(memory.level(0, steps, x).clone())
    for ours, expected in zip(found[False], found[True]):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_only_what_changed_is_computed():
    steps, _ = make_steps(1, 2)
    spread, finished = [], []
    counting = LevelSteps(
        spread=lambda x: spread.append(x.shape) or steps.spread(x),
        weight=steps.weight,
        bias=None,
        finish=lambda y: finished.append(y.shape) or steps.finish(y),
        pixels=2,
    )
    x = torch.randn(1, CHANNELS, 8, 8)
    memory = MapMemory.start(x)
    memory.level(0, counting, x)
    changes = [((3, 3),), (), ((0, 0),), ((2, 2), (2, 3)), ((1, 1), (6, 6))]
    pixels = [16, 0, 9, 4 * 6, 32]  # 4 x 4 pixels around one of 2 x 2; cut off in a corner
    for where, expected in zip(changes, pixels):
        spread.clear(), finished.clear()
        x = x.clone()
        for row, column in where:
            x[..., row, column] += 1
        memory.take(x, Threshold(0.0))
        memory.level(0, counting, x)
        assert spread == ([(1, CHANNELS, 1, len(where))] if where else [])
        assert sum(shape[3] for shape in finished) == expected


def test_a_memory_is_its_own():
    steps, whole = make_steps()
    x = torch.randn(1, CHANNELS, 5, 5)
    memory = MapMemory.start(x)
    kept = whole(x)
    memory.level(0, steps, x)
    x.zero_()
    torch.testing.assert_close(memory.levels[0].out, kept)
    assert memory.seen.abs().sum() > 0
    assert start_level(steps, x).out.is_contiguous()


def test_rows_and_masks():
    mask = torch.zeros(2, 5, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 4, 3] = mask[1, 2, 1] = True
    assert rows_where(mask, 2).tolist() == [0, 29, 39]
    squares = squares_with_any(mask, 2)
    assert squares.nonzero().tolist() == [[0, 0, 0], [1, 1, 0]], "the last row fills no square"
    near = reached(squares, 1)
    assert near[0].tolist() == near[1].tolist() == [[True, True], [True, True]]
    assert reached(mask, 2)[0].sum() == 9 and reached(mask, 2)[1].sum() == 9 + 16
