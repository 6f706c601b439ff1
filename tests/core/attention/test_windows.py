from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention.windows import (
    from_windows,
    pad_map,
    padded_grid,
    to_windows,
    window_slots,
)


def test_windows_hold_the_tokens_of_their_square_row_by_row():
    x = torch.arange(2 * 6 * 4).reshape(2, 6, 4, 1)
    windows = to_windows(x, 2)
    assert windows.shape == (2 * 6, 4, 1)
    for image in range(2):
        for row in range(3):
            for column in range(2):
                square = x[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                window = windows[image * 6 + row * 2 + column]
                assert torch.equal(window, square.reshape(4, 1))


def test_padding_goes_right_and_down_holds_its_value_and_is_cut_off_again():
    torch.manual_seed(0)
    x, value = torch.randn(2, 5, 7, 3), torch.randn(3)
    padded = pad_map(x, 4, value)
    assert padded.shape[1:3] == padded_grid((5, 7), 4) == (8, 8)
    assert torch.equal(padded[:, :5, :7], x)
    assert torch.equal(padded[:, 5:], value.expand(2, 3, 8, 3))
    assert torch.equal(padded[:, :, 7:], value.expand(2, 8, 1, 3))
    assert torch.equal(from_windows(to_windows(padded, 4), 4, (5, 7)), x)
    assert pad_map(x[:, :4, :4], 4, value).shape == (2, 4, 4, 3)
    assert pad_map(x, 4)[:, 5:].abs().sum() == 0


@pytest.mark.parametrize("first", [(0, 0), (3, 0), (-1, 6), (14, -9)])
def test_windows_of_a_view_stay_on_the_scene(first):
    """By the definition: a window is a square of the scene, whatever part of it is in view."""
    (height, width), size = (7, 9), 4
    windows = {}
    for y in range(first[0], first[0] + height):
        for x in range(first[1], first[1] + width):
            window = windows.setdefault((y // size, x // size), [height * width] * size * size)
            window[y % size * size + x % size] = (y % height) * width + x % width
    expected = [windows[place] for place in sorted(windows)]
    assert window_slots((height, width), size, first).tolist() == expected
