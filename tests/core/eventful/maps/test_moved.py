"""Necks and heads behind a view that moves, against those that see each of its maps as a first."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.adapters.hosts.parts import HEADS, find_neck
from mmvitaccel.adapters.parts import family_of
from mmvitaccel.core.eventful.gates.policy import Threshold, TopK
from mmvitaccel.core.eventful.maps.memory import MapMemory
from mmvitaccel.core.eventful.maps.sheets import Sheet
from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.testing import maps

CHANNELS = 24
ROOM = 40


def simple_fpn():
    kind = dict(type="mmvitaccel.SimpleFPN", in_channels=CHANNELS, out_channels=8, num_outs=5)
    return maps.build(kind)


def mmdet_fpn():
    """Three maps of the same cells, which it adds up, and coarser ones by strided convolutions."""
    return maps.fpn(in_channels=[CHANNELS] * 3, num_outs=5, add_extra_convs="on_output")


NECKS = {"SimpleFPN": (simple_fpn, 1), "FPN": (mmdet_fpn, 3)}
HEADS_ = {"RPN": maps.rpn, "RetinaNet": maps.retina, "FCOS": maps.fcos}
MOVES = [(1, 0), (0, -1), (2, 0), (-2, 2), (4, -4), (1, -2), (0, 0), (-4, -1), (3, 3), (20, 0)]


def scene(seed=0):
    side = 2 * ROOM + 12
    return torch.randn(1, CHANNELS, side, side, generator=torch.Generator().manual_seed(seed))


def views(size, moves, scene_number=0):
    """The maps of a view over a scene in which a cell changes in each frame, and their places."""
    whole, first = scene(), (0, 0)
    generator = torch.Generator().manual_seed(1)
    for step in ((0, 0), *moves):
        first = (first[0] + step[0], first[1] + step[1])
        y, x = ROOM + first[0], ROOM + first[1]
        whole[..., y + 1 : y + 2, x + 2 : x + 3] += torch.randn((), generator=generator)
        view = whole[..., y : y + size[0], x : x + size[1]].clone()
        yield view, Place(scene_number, size, first, (first[0] * 16 + 3, first[1] * 16 - 2), 16)


def made(neck, memory, view, count, policy=None):
    module, adapter = find_neck(neck)
    sheets = memory.take([view] * count, policy or Threshold(0.0), adapter.border(module))
    return adapter.levels(module)(memory.sheets, sheets)


def close(found, expected):
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 12), (7, 5)], ids=str)
@pytest.mark.parametrize(("make", "count"), NECKS.values(), ids=NECKS)
@torch.no_grad()
def test_a_neck_that_moves_is_a_new_one_on_the_view(make, count, size):
    neck, memory = make(), MapMemory()
    for view, place in views(size, MOVES):
        memory.move(place, whole=False)
        levels = made(neck, memory, view, count)
        expected = made(neck, MapMemory(), view, count)
        close([level.map for level in levels], [level.map for level in expected])


@pytest.mark.parametrize("make", HEADS_.values(), ids=HEADS_)
@torch.no_grad()
def test_a_head_that_moves_is_a_new_one_on_the_levels(make):
    neck, head = simple_fpn(), make()
    if hasattr(head, "scales"):
        head.scales.append(head.scales[0])
        head.strides = [4, 8, 16, 32, 64]
    outputs = family_of(head, HEADS)[0].outputs(head)
    memory, own = MapMemory(), MapMemory()
    for view, place in views((8, 12), MOVES):
        memory.move(place, whole=False)
        own.move(place, whole=False)
        levels = made(neck, memory, view, 1)
        found = outputs(own.sheets, own.follow(memory.pages(levels)))
        fresh = MapMemory()
        expected = outputs(fresh.sheets, [Sheet.of(level.map, 1) for level in levels])
        for one, other in zip(found, expected):
            close(one, other)


@torch.no_grad()
def test_what_stays_in_view_is_neither_computed_nor_changed():
    """But for what is within reach of the cells that entered, of the edge and of what changed."""
    neck, memory = simple_fpn(), MapMemory()
    (first, at), (second, to) = views((8, 12), [(2, 0)])
    memory.move(at, whole=False)
    before = [level.map.clone() for level in made(neck, memory, first, 1)]
    memory.move(to, whole=False)
    levels = made(neck, memory, second, 1)
    assert memory.gates[0].passed.mask().sum() == 2 * 12 + 1
    for level, old, pixels in zip(levels[:3], before, (8, 4, 2)):
        kept = ~level.changed[0]
        assert kept.sum() > kept.numel() / 3
        assert torch.equal(level.map[0, :, kept], old.roll(-pixels, 2)[0, :, kept])


@torch.no_grad()
def test_what_came_into_view_passes_beyond_the_budget():
    neck, memory = simple_fpn(), MapMemory()
    for view, place in views((8, 12), [(0, -1), (1, 0)]):
        memory.move(place, whole=False)
        made(neck, memory, view, 1, TopK(4))
    mask = memory.gates[0].passed.mask().unflatten(1, (8, 12))[0]
    assert mask[-1].all() and int(mask.sum()) == 12


@torch.no_grad()
def test_another_scene_begins_anew_and_a_whole_frame_where_it_is():
    neck, memory = simple_fpn(), MapMemory()
    for view, place in views((8, 12), [(1, 0)]):
        memory.move(place, whole=False)
        made(neck, memory, view, 1)
    (other, place), *_ = views((8, 12), [], scene_number=1)
    memory.move(place, whole=False)
    levels = made(neck, memory, other, 1)
    assert all(level.changed is None for level in levels)
    memory.move(place._replace(first=(5, 5)), whole=True)
    assert memory.place.first == (5, 5)
    assert all(sheet.moved == (0, 0) for sheet in memory.sheets.values())


@pytest.mark.parametrize(
    ("size", "cells", "grid", "step"),
    [
        ((8, 12), (1, -2), (4, 6), (2, -4)),
        ((2, 3), (2, -4), (4, 6), (1, -2)),
        ((2, 3), (1, 0), (4, 6), None),
        ((2, 3), (0, -2), (4, 6), (0, -1)),
        ((3, 5), (0, 2), (3, 7), None),
        ((3, 5), (2, 0), (3, 7), (2, 0)),
    ],
)
def test_pixels_that_a_step_of_cells_is(size, cells, grid, step):
    sheet = Sheet.of(torch.zeros(1, 2, *size), 1)
    assert sheet.step_of(cells, grid) == step
