"""Maps of merged tokens and their drawing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.errors import UserError
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.pictures.tokens import draw_tokens, patch_grid, picture, token_maps
from mmvitaccel.testing import models


def videomae():
    pytest.importorskip("mmaction")
    return models.videomae(
        img_size=32, patch_size=8, embed_dims=16, depth=2, num_heads=2, num_frames=4
    )


def timesformer():
    pytest.importorskip("mmaction")
    return models.timesformer(
        num_frames=2,
        img_size=32,
        patch_size=8,
        embed_dims=16,
        num_heads=2,
        num_transformer_layers=2,
    )


def test_grids_are_of_the_first_convolution():
    assert patch_grid(videomae(), (3, 4, 32, 48)) == (2, 4, 6)
    assert patch_grid(timesformer(), (3, 2, 32, 32)) == (2, 4, 4)
    size = dict(img_size=64, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    vitdet = ViTDet(**size, window_block_indexes=())
    assert patch_grid(vitdet, (3, 60, 33)) == (1, 8, 5)
    with pytest.raises(UserError, match="Linear cuts no patches itself"):
        patch_grid(nn.Linear(2, 2), (3, 8, 8))


def test_a_clip_has_tokens_over_several_frames():
    model = videomae().eval()
    handle = apply_tome(model, 10, trace_source=True)
    model(torch.randn(2, 3, 4, 32, 32))
    maps = token_maps(handle, (2, 4, 4))
    assert [m.shape for m in maps] == [(2, 4, 4)] * 2
    assert [len(m.unique()) for m in maps] == handle.info.tokens == [22, 12]
    for patches, source in zip(maps, handle.info.sources):
        for patch, token in enumerate(patches.flatten().tolist()):
            assert source[0, token, patch]


def test_frames_that_merge_apart_have_tokens_of_their_own():
    model = timesformer().eval()
    handle = apply_tome(model, 3, trace_source=True)
    model(torch.randn(2, 3, 2, 32, 32))
    for patches in token_maps(handle, (2, 4, 4)):
        assert [len(frame.unique()) for frame in patches] == [13, 13]
        assert not set(patches[0].flatten().tolist()) & set(patches[1].flatten().tolist())


def test_windows_are_put_back_in_their_places():
    model = ViTDet(
        img_size=48, patch_size=8, embed_dim=16, depth=2, num_heads=2, window_size=4,
        window_block_indexes=(0,),
    ).eval()  # fmt: skip
    handle = apply_tome(model, 2, trace_source=True)
    model(torch.randn(1, 3, 40, 48))
    windowed, whole = token_maps(handle, (1, 5, 6))
    assert windowed.shape == whole.shape == (1, 5, 6)
    assert len(whole.unique()) == 28
    corners = [windowed[0, :4, :4], windowed[0, :4, 4:], windowed[0, 4:, :4], windowed[0, 4:, 4:]]
    for index, corner in enumerate(corners):
        assert set((corner.flatten() // 14).tolist()) == {index}
    assert len(corners[0].unique()) == 14


def test_tokens_get_their_mean_colour_and_a_line():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[:, :, :4] = 100
    frames[:, :4, :4] = 200
    frames[1] = 50  # the second of two frames in a patch is not drawn
    tokens = torch.tensor([[[0, 1], [0, 1]]])
    drawn = draw_tokens(frames, tokens)
    assert drawn.shape == (1, 8, 8, 3)
    assert (drawn[0, :, :4] == 150).all()
    assert (drawn[0, :, 4] == 20).all()
    assert (drawn[0, :, 5:] == 0).all()


def test_pictures_put_blocks_beside_an_image_and_below_a_clip():
    maps = {0: torch.arange(4).view(1, 2, 2), 5: torch.zeros(1, 2, 2, dtype=torch.long)}
    assert picture(np.zeros((1, 16, 16, 3), np.uint8), maps, [4] * 6).shape == (34, 56, 3)
    maps = {0: torch.zeros(2, 2, 2, dtype=torch.long)}
    assert picture(np.zeros((4, 16, 16, 3), np.uint8), maps, [1]).shape == (72, 36, 3)
