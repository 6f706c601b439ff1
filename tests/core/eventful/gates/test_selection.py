from __future__ import annotations

import torch

from mmvitaccel.core.eventful.gates.selection import Selection, complement, everything, from_mask


def test_gather_takes_and_put_writes_the_selected_tokens():
    torch.manual_seed(0)
    x, values = torch.randn(2, 6, 3), torch.randn(2, 2, 3)
    index = torch.tensor([[4, 0], [1, 5]])
    selection = Selection(index, 6)
    assert torch.equal(selection.gather(x), torch.stack([x[0, [4, 0]], x[1, [1, 5]]]))
    expected = x.clone()
    expected[0, [4, 0]], expected[1, [1, 5]] = values[0], values[1]
    memory = x.clone()
    assert selection.put(memory, values) is memory
    assert torch.equal(memory, expected)
    heads = torch.randn(2, 5, 6, 3)
    assert torch.equal(selection.gather(heads)[1, 3], heads[1, 3, [1, 5]])
    assert selection.counts == [2, 2]
    for b in range(2):  # one at a time takes another way
        one = Selection(index[b : b + 1], 6)
        assert torch.equal(one.gather(x[b : b + 1]), selection.gather(x)[b : b + 1])
        assert torch.equal(one.gather(heads[b : b + 1]), selection.gather(heads)[b : b + 1])
        alone = x[b : b + 1].clone()
        assert torch.equal(one.put(alone, values[b : b + 1]), expected[b : b + 1])


def test_ragged_rows_are_filled_up_and_what_fills_stays_as_it_was():
    mask = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 0], [0] * 5]).bool()
    selection = from_mask(mask)
    assert selection.index.tolist() == [[1, 4, 0], [4, 0, 1], [0, 1, 2], [0, 1, 2]]
    assert selection.counts == [2, 1, 3, 0]
    assert torch.equal(selection.mask(), mask)
    memory = torch.zeros(4, 5, 2)
    selection.put(memory, torch.ones(4, 3, 2))
    assert torch.equal(memory[..., 0].bool(), mask)
    bounded = from_mask(mask, at_most=4)
    assert bounded.index.shape == (4, 4) and bounded.counts == [2, 1, 3, 0]


def test_equal_rows_and_no_rows_need_no_marks():
    mask = torch.tensor([[0, 1, 1], [1, 0, 1]]).bool()
    assert from_mask(mask).chosen is None
    nothing = from_mask(torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.index.shape == (2, 0)
    memory = torch.randn(2, 3, 4)
    before = memory.clone()
    assert torch.equal(nothing.put(memory, torch.empty(2, 0, 4)), before)


def test_everything_moves_nothing():
    x = torch.randn(2, 4, 3)
    selection = everything(x)
    assert selection.everything and selection.gather(x) is x
    memory = torch.empty_like(x)
    assert torch.equal(selection.put(memory, x), x) and memory is not x


def test_complement_is_what_is_left_in_order():
    left = complement(Selection(torch.tensor([[4, 0], [1, 2]]), 5))
    assert left.tolist() == [[1, 2, 3], [0, 3, 4]]
    assert complement(everything(torch.empty(1, 3, 2))).shape == (1, 0)
