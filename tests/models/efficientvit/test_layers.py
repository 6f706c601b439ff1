"""Layers around the blocks."""

from __future__ import annotations

import torch

from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.layers import patch_embedding


def test_patch_embedding_widens_while_it_halves():
    embedding = patch_embedding(32)
    convolutions = [layer.c for layer in embedding if isinstance(layer, ConvNorm)]
    assert [c.weight.shape[:2] for c in convolutions] == [(4, 3), (8, 4), (16, 8), (32, 16)]
    assert embedding(torch.rand(2, 3, 33, 64)).shape == (2, 32, 3, 4)
