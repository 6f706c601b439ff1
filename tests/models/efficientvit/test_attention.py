"""Window attention against loops over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mmvitaccel.models.efficientvit.attention import (
    WindowAttention,
    offset_index,
    resize_biases,
)


def attend_slowly(attn: nn.Module, x: Tensor) -> Tensor:
    """Equations 2 and 3 for one map (C, H, W), one query at a time."""
    channels, height, width = x.shape
    dims = channels // attn.num_heads
    outs, previous = [], 0
    for head in range(attn.num_heads):
        group = x[head * dims : (head + 1) * dims] + previous
        qkv = attn.qkvs[head](group[None])[0]
        q = attn.dws[head](qkv[None, :16])[0]
        k, v = qkv[16:32], qkv[32:]
        out = torch.zeros(dims, height, width, dtype=x.dtype)
        for row in range(height):
            for column in range(width):
                weights = torch.zeros(height, width, dtype=x.dtype)
                for other_row in range(height):
                    for other_column in range(width):
                        offset = abs(row - other_row) * attn.window_size
                        offset += abs(column - other_column)
                        logit = (q[:, row, column] * k[:, other_row, other_column]).sum() / 4
                        weights[other_row, other_column] = (
                            logit + attn.attention_biases[head, offset]
                        )
                weights = weights.flatten().softmax(0).view(height, width)
                out[:, row, column] = (weights * v).sum((1, 2))
        outs.append(out)
        previous = out
    return attn.proj(torch.cat(outs)[None])[0]


def window_slowly(layer: WindowAttention, x: Tensor) -> Tensor:
    """Cut (B, C, H, W) into windows one by one, zeros beyond the border."""
    side = layer.window_size
    batch, channels, height, width = x.shape
    if max(height, width) <= side:
        return torch.stack([attend_slowly(layer.attn, image) for image in x])
    out = torch.zeros_like(x)
    for image in range(batch):
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = torch.zeros(channels, side, side, dtype=x.dtype)
                part = x[image, :, top : top + side, left : left + side]
                window[:, : part.shape[1], : part.shape[2]] = part
                window = attend_slowly(layer.attn, window)
                window = window[:, : part.shape[1], : part.shape[2]]
                out[image, :, top : top + side, left : left + side] = window
    return out


@pytest.mark.parametrize(
    "size", [(4, 4), (1, 1), (2, 3), (4, 1), (8, 4), (5, 7), (3, 6), (9, 4), (1, 5)]
)
@pytest.mark.parametrize("heads, kernels", [(1, (5,)), (3, (5, 3, 3, 3))])
def test_window_attention_equals_loops(randomise, size, heads, kernels):
    layer = randomise(WindowAttention(24, heads, 4, kernels)).double().eval()
    x = torch.randn(2, 24, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = window_slowly(layer, x)
        torch.testing.assert_close(layer(x), expected)
        layer.attn.attention_biases.zero_()
        if max(size) > 1:
            assert not torch.allclose(layer(x), expected)


def test_offset_index_is_row_major_by_absolute_offset():
    index = offset_index(3)
    assert index.dtype == torch.int64
    points = [(row, column) for row in range(3) for column in range(3)]
    expected = [[abs(a - c) * 3 + abs(b - d) for c, d in points] for a, b in points]
    assert index.tolist() == expected


def cubic(distance: float) -> float:
    """Weight of cubic convolution with a = -0.75, as Keys has it."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


@pytest.mark.parametrize("old, new", [(4, 7), (7, 4), (2, 3)])
def test_biases_are_resized_bicubically(old, new):
    def rows() -> Tensor:
        matrix = torch.zeros(new, old)
        for i in range(new):
            centre = (i + 0.5) * old / new - 0.5
            for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
                matrix[i, min(max(j, 0), old - 1)] += cubic(centre - j)
        return matrix

    biases = torch.randn(3, old * old)
    expected = rows() @ biases.view(3, old, old) @ rows().T
    torch.testing.assert_close(resize_biases(biases, new), expected.view(3, -1))
    assert resize_biases(biases, old) is biases
    assert resize_biases(biases.half(), new).dtype == torch.float16
