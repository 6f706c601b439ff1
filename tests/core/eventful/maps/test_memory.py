"""Gates before maps, and a memory that follows another one."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopK
from mmvitaccel.core.eventful.maps.memory import MapMemory, cells_of


def test_each_map_has_a_gate_and_what_passed_is_told_of_all():
    fine, coarse = torch.randn(1, 4, 3, 5), torch.randn(1, 6, 2, 2)
    memory = MapMemory()
    assert [s.changed for s in memory.take([fine, coarse], TopK(2), 0)] == [None, None]
    assert [s.counts for s in memory.passed] == [[19]]
    fine[..., 1, 1] += 9
    coarse[..., 0, 1] += 9
    a, b = memory.take([fine, coarse], Threshold(0.1), 0)
    assert a.changed.nonzero().tolist() == [[0, 1, 1]]
    assert b.changed.nonzero().tolist() == [[0, 0, 1]]
    (passed,) = memory.passed
    assert passed.mask().nonzero().tolist() == [[0, 6], [0, 16]]
    assert torch.equal(a.map, fine) and torch.equal(b.map, coarse)
    assert memory.left_out[0] == 0
    memory.take([fine + 1, coarse], TopK(2), 0)
    assert memory.passed[0].counts == [4] and memory.left_out[0] > 0


def test_errors_of_several_maps_are_relative_to_their_own_cells():
    small, large = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 100.0)
    memory = MapMemory()
    memory.take([small, large], Always(), 0)
    small[..., 0, 0] += 0.2  # a fifth of a cell's norm
    large[..., 1, 1] += 2.0  # a fiftieth
    a, b = memory.take([small, large], Threshold(0.1), 0)
    assert a.changed.nonzero().tolist() == [[0, 0, 0]] and not b.changed.any()
    alone = MapMemory()
    alone.take([large], Always(), 0)
    large[..., 1, 1] += 2.0
    (c,) = alone.take([large], Threshold(0.1), 0)
    assert c.changed.nonzero().tolist() == [[0, 1, 1]], "the errors of one map are as they are"


def test_what_passes_may_be_ragged():
    x = torch.zeros(2, 3, 2, 4)
    memory = MapMemory()
    memory.take([x], Threshold(0.0), 1)
    x[0, :, 0, 0] = 1
    x[1, :, 1, 2:] = 1
    (sheet,) = memory.take([x], Threshold(0.0), 1)
    assert sheet.changed.nonzero().tolist() == [[0, 0, 0], [1, 1, 2], [1, 1, 3]]
    assert torch.equal(sheet.map, x) and sheet.padded.shape == (2, 4, 6, 3)
    assert memory.passed[0].counts == [1, 2]


def test_a_memory_follows_another_frame_by_frame():
    x = torch.randn(1, 2, 3, 3)
    first, follower = MapMemory(), MapMemory()

    def frame(memory, follow=True):
        pages = memory.pages(memory.take([x], Threshold(0.0), 1))
        if follow:
            follower.follow(pages)
        return follower

    frame(first).sheets["made"] = "kept"
    assert "made" in frame(first).sheets
    frame(first, follow=False)
    assert "made" not in frame(first).sheets, "a frame was missed"
    follower.sheets["made"] = "kept"
    assert not frame(MapMemory()).sheets, "another memory"
    follower.sheets["made"] = "kept"
    assert follower.passed == follower.left_out == ()
    follower.take([x], Threshold(0.0), 1)
    assert not follower.sheets, "gates of its own"
    follower.sheets["made"] = "kept"
    follower.take([x], Threshold(0.0), 1)
    assert "made" in follower.sheets


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cells_of_a_map_are_a_view(layout):
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    cells = cells_of(x)
    assert cells.data_ptr() == x.data_ptr()
    torch.testing.assert_close(cells, x.flatten(2).transpose(1, 2), rtol=0, atol=0)
