"""Sheets brought up to date against maps computed whole, on maps of awkward sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopK
from mmvitaccel.core.eventful.maps import rows, steps
from mmvitaccel.core.eventful.maps.memory import MapMemory
from mmvitaccel.core.eventful.maps.rows import grown, rows_where, squares_with_any
from mmvitaccel.core.eventful.maps.sheets import Sheet
from mmvitaccel.core.eventful.maps.steps import Above, Mix, Spread, mix, spread, subsample
from mmvitaccel.core.kernels import half_linear

CHANNELS = 6


class Level:
    """A level whose squares of ``cells`` cells become ``pixels`` pixels a side, then two towers."""

    def __init__(self, cells=1, pixels=1, bias=True, depth=1, stride=1):
        torch.manual_seed(cells * 10 + pixels)
        self.grow = nn.ConvTranspose2d(CHANNELS, 5, pixels, stride=pixels).requires_grad_(False)
        self.pool = cells
        self.convs = [
            nn.Conv2d(5, 5, 3, padding=1, bias=bias, stride=stride).requires_grad_(False)
            for _ in range(depth)
        ]
        self.first = Spread(self.expand, cells, pixels)
        self.steps = [Mix(c.weight, c.bias, self.finish, c.stride[0]) for c in self.convs]

    def expand(self, x):
        return self.grow(F.max_pool2d(x, self.pool)).relu()

    def finish(self, y):
        return y * torch.arange(1.0, 6)[:, None, None].tanh()

    def whole(self, x):
        x = self.expand(x)
        for conv in self.convs:
            x = self.finish(conv(x))
        return x

    def __call__(self, memory, source):
        x = spread(memory.sheets, "spread", source, self.first)
        for depth, step in enumerate(self.steps):
            x = mix(memory.sheets, {f"mix {depth}": step}, x)[0]
        return x


LEVELS = [(1, 1), (1, 2), (1, 4), (2, 1), (3, 2)]
SIZES = [(7, 10), (6, 6), (3, 3), (1, 8)]


def changing(batch, size, frames, share, seed=0, channels=CHANNELS):
    """Maps of which a share of the cells changes from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=generator)
    for _ in range(frames):
        yield x
        moves = torch.rand(batch, 1, *size, generator=generator) < share
        x = torch.where(moves, torch.randn(x.shape, generator=generator), x)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.03, 0.3, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_a_level_is_that_of_the_whole_map(cells, pixels, size, share):
    if min(size) < cells:
        pytest.skip("no square of cells fits")
    level, memory = Level(cells, pixels), MapMemory()
    for x in changing(2, size, 6, share):
        (source,) = memory.take([x], Threshold(0.0), 0)
        close(level(memory, source).map, level.whole(x))


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_a_level_is_that_of_the_gated_map(cells, pixels, k):
    level, memory, seen = Level(cells, pixels), MapMemory(), None
    for x in changing(1, (7, 9), 8, 0.5):
        if seen is None:
            seen = x.clone()
        else:
            error = (seen - x).norm(dim=1).flatten()
            index = error.topk(k).indices
            seen.flatten(2)[..., index] = x.flatten(2)[..., index]
        (source,) = memory.take([x], TopK(k), 0)
        close(level(memory, source).map, level.whole(seen))


@pytest.mark.parametrize("share", [0.02, 0.2])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_pixels_out_of_reach_keep_their_bits(depth, share, monkeypatch):
    for whole_share in (0.9, 0.0):  # gathered, and whole maps of which only what is near is taken
        monkeypatch.setattr(steps, "_WHOLE_SHARE", whole_share)
        level, memory, before = Level(depth=depth), MapMemory(), None
        for x in changing(1, (15, 17), 5, share):
            (source,) = memory.take([x], Threshold(0.0), 1)
            sheet = level(memory, source)
            close(sheet.map, level.whole(x))
            if before is not None:
                reach = source.changed
                for _ in range(depth):
                    reach = grown(reach)
                assert torch.equal(sheet.changed, reach)
                assert torch.equal(sheet.pixels[~reach], before[~reach])
            before = sheet.pixels.clone()


@pytest.mark.parametrize("size", [(8, 9), (5, 2)], ids=str)
def test_strides_and_sums_with_a_coarser_map(size):
    torch.manual_seed(0)
    fine, coarse = (nn.Conv2d(CHANNELS, 5, 1).requires_grad_(False) for _ in range(2))
    down = Level(stride=2)

    def enlarge(x):
        return F.interpolate(x, size=size, mode="nearest")

    memory, small = MapMemory(), ((size[0] + 1) // 2, (size[1] + 2) // 3)
    videos = zip(changing(2, size, 5, 0.1), changing(2, small, 5, 0.1, seed=1))
    for x, y in videos:
        a, b = memory.take([x, y], Threshold(0.0), 0)
        above = spread(memory.sheets, "coarse", b, Spread(coarse))
        sheet = spread(memory.sheets, "fine", a, Spread(fine), Above(above, enlarge))
        expected = fine(x) + enlarge(coarse(y))
        close(sheet.map, expected)
        close(subsample(memory.sheets, "sub", sheet).map, F.max_pool2d(expected, 1, stride=2))
        out = mix(memory.sheets, {"down": down.steps[0]}, sheet)[0]
        close(out.map, down.finish(down.convs[0](expected)))
        assert out.changed is None or out.changed.shape[1:] == out.size


@pytest.mark.parametrize("policy", [Threshold(0.0), TopK(3), Always()], ids=repr)
@pytest.mark.parametrize(("cells", "pixels"), LEVELS)
def test_without_reading_counts_from_the_device(monkeypatch, cells, pixels, policy):
    level = Level(cells, pixels, depth=2)
    maps, found = list(changing(2, (8, 9), 6, 0.05)), {}
    for free in (True, False):
        for module in (rows, steps):
            monkeypatch.setattr(module, "reading_is_free", lambda device, free=free: free)
        memory, found[free] = MapMemory(), []
        for x in maps:
            (source,) = memory.take([x], policy, 0)
            sheet = level(memory, source)
            if found[free]:
                kept = ~sheet.changed
                assert torch.equal(sheet.pixels[kept], found[free][-1][kept])
            found[free].append(sheet.pixels.clone())
    for ours, expected in zip(found[False], found[True]):
        close(ours, expected)


def test_only_what_changed_is_computed():
    level = Level(1, 2, bias=False)
    spreads, finished = [], []
    level.first = Spread(lambda x: spreads.append(x.shape) or level.expand(x), pixels=2)
    weight = level.convs[0].weight
    level.steps = [Mix(weight, None, lambda y: finished.append(y.shape) or level.finish(y))]
    x = torch.randn(1, CHANNELS, 8, 8)
    memory = MapMemory()
    level(memory, *memory.take([x], Threshold(0.0), 0))
    changes = [((3, 3),), (), ((0, 0),), ((2, 2), (2, 3)), ((1, 1), (6, 6))]
    pixels = [16, 0, 9, 4 * 6, 32]  # 4 x 4 pixels around one of 2 x 2; cut off in a corner
    for where, expected in zip(changes, pixels):
        spreads.clear(), finished.clear()
        x = x.clone()
        for row, column in where:
            x[..., row, column] += 1
        level(memory, *memory.take([x], Threshold(0.0), 0))
        assert spreads == ([(1, CHANNELS, 1, len(where))] if where else [])
        assert sum(shape[3] for shape in finished) == expected


def test_several_convolutions_of_a_source_and_a_result_without_a_border():
    torch.manual_seed(1)
    convs = [nn.Conv2d(CHANNELS, n, 3, padding=1).requires_grad_(False) for n in (2, 7)]
    steps = {str(i): Mix(c.weight, c.bias, torch.relu, border=i) for i, c in enumerate(convs)}
    memory = MapMemory()
    for x in changing(1, (5, 6), 4, 0.1):
        made = mix(memory.sheets, steps, *memory.take([x], Threshold(0.0), 1))
        for sheet, conv in zip(made, convs):
            close(sheet.map, conv(x).relu())
    assert [sheet.padded.shape for sheet in made] == [(1, 5, 6, 2), (1, 7, 8, 7)]


def test_a_sheet_is_its_own():
    x = torch.randn(1, CHANNELS, 5, 5)
    for border in (0, 1):
        sheet = Sheet.of(x, border)
        assert sheet.padded.is_contiguous() and torch.equal(sheet.map, x)
        sheet.pixels.zero_()
    assert x.abs().sum() > 0


def test_rows_and_masks():
    mask = torch.zeros(2, 5, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 4, 3] = mask[1, 2, 1] = True
    assert rows_where(mask, 2).index.tolist() == [0, 29, 39]
    squares = squares_with_any(mask, 2)
    assert squares.nonzero().tolist() == [[0, 0, 0], [1, 1, 0]], "the last row fills no square"
    near = grown(squares)
    assert near[0].tolist() == near[1].tolist() == [[True, True], [True, True]]
    assert grown(mask)[0].sum() == 4 and grown(mask)[1].sum() == 9 + 4 - 1
    assert grown(mask, 2).nonzero().tolist() == [
        [0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 2, 1],
    ]  # fmt: skip


def test_where_single_precision_is_faster_weights_are_not_rounded(monkeypatch):
    monkeypatch.setattr(half_linear, "_single_is_faster", lambda: True)
    torch.manual_seed(0)
    step = Mix(torch.randn(4, 5, 3, 3), torch.randn(4), nn.Identity())
    near = torch.randn(200, 45).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = step.around(near, None, torch.zeros(200, dtype=torch.int64))
    expected = F.linear(near.double(), step.matrix.double(), step.bias.double())
    assert out.dtype == torch.bfloat16
    assert ((out.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-5).all()
