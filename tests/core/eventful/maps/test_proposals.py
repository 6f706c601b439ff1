"""Which proposals hold still, by a look at every pixel."""

from __future__ import annotations

import torch

from mmvitaccel.core.eventful.gates.policy import Threshold
from mmvitaccel.core.eventful.maps.proposals import ProposalMemory, places_of, untouched
from mmvitaccel.core.eventful.motion.place import Place


def test_regions_are_those_that_hold_a_new_pixel():
    generator = torch.Generator().manual_seed(0)
    changed = torch.rand(9, 13, generator=generator) < 0.05
    first = torch.randint(-3, 14, (200, 2), generator=generator)
    last = first + torch.randint(0, 6, (200, 2), generator=generator)
    found = untouched(first, last, changed)
    for (left, top), (right, bottom), still in zip(first.tolist(), last.tolist(), found):
        columns = {min(max(x, 0), 12) for x in range(left, right + 1)}
        rows = {min(max(y, 0), 8) for y in range(top, bottom + 1)}
        assert bool(still) != any(changed[y, x] for y in rows for x in columns)
    assert 20 < found.sum() < 180


def test_boxes_are_found_by_every_number():
    old = torch.tensor([[0.0, 1, 2, 3], [5, 6, 7, 8], [0, 1, 2, 3]])
    new = torch.tensor([[5.0, 6, 7, 8], [5, 6, 7, 8.0001], [0, 1, 2, 3]])
    found = places_of(new, old).tolist()
    assert found[:2] == [1, -1] and found[2] in (0, 2)
    assert places_of(new, old[:0]).tolist() == [-1] * 3
    assert places_of(new[:0], old).tolist() == []


def test_results_are_those_of_the_frame_before_alone():
    boxes = torch.rand(3, 5)
    memory = ProposalMemory()

    def frame():
        x = torch.zeros(1, 1, 2, 2)
        memory.take([x], None, 0) if not memory.gates else memory._begin()

    frame()
    assert memory.find("box", boxes).tolist() == [-1] * 3 and memory.computed == 0
    memory.keep("box", boxes, dict(score=torch.zeros(3)), torch.tensor(3))
    frame()
    assert memory.find("box", boxes.flip(0)).tolist() == [2, 1, 0]
    assert memory.find("mask", boxes).tolist() == [-1] * 3
    memory.keep("mask", boxes, dict(mask=torch.zeros(3)), torch.tensor(3))
    memory.keep("mask 2", boxes[:1], dict(mask=torch.zeros(3)), torch.tensor(0))
    assert float(memory.computed) == 0.75
    frame()
    assert memory.find("box", boxes).tolist() == [-1] * 3, "a frame lies between"
    assert memory.find("mask", boxes).tolist() == [0, 1, 2]


def test_behind_a_camera_boxes_are_those_that_lie_where_they_were_in_the_scene():
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(40, 1)
    boxes = torch.cat((image, 600 * torch.rand(40, 4, generator=generator)), 1)
    memory, start = ProposalMemory(), Place(7, (40, 40), (0, 0), (0, 0), 16)

    def frame(boxes, **place):
        memory.move(start._replace(**place), whole=False)
        memory.take([torch.zeros(1, 1, 40, 40)], Threshold(0.0), 0)
        found = memory.find("box", boxes)
        memory.keep("box", boxes, {}, torch.tensor(0))
        return found.tolist()

    everyone, nobody = list(range(40)), [-1] * 40
    frame(boxes)
    assert frame(boxes) == everyone
    assert frame(boxes + 1e-3) == nobody, "while nothing moves, every bit counts"
    assert frame(boxes + 1e-3, offset=(3, -5)) == everyone, "the frame moves on the view"
    step = torch.tensor([0.0, -32, 16, -32, 16])
    noise = 1e-4 * torch.randn(40, 5, generator=generator) * (step != 0)
    moved = frame(boxes + 1e-3 - step + noise, offset=(17, -35), first=(1, -2))
    assert sum(a == b for a, b in zip(moved, everyone)) > 35, "the view moves"
    assert frame(boxes - step + 0.1 * step.sign(), offset=(17, -35), first=(1, -2)) == nobody
