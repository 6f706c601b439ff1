"""Pictures of any proportions at the model's size, with the model's own statistics."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

from mmvitaccel.pictures import token_run
from mmvitaccel.pictures.framing import Framing
from mmvitaccel.runner.session import build_model


def panorama():
    """300 x 100 pixels, red, green and blue thirds."""
    image = np.zeros((100, 300, 3), np.uint8)
    for third in range(3):
        image[:, 100 * third : 100 * (third + 1), third] = 255
    return image


def framing(*steps, scope="mmdet"):
    pipeline = [dict(step) for step in steps]
    cfg = dict(
        default_scope=scope,
        model=dict(type=f"{scope}.X"),
        test_dataloader=dict(dataset=dict(pipeline=pipeline)),
    )
    return Framing.of(Config(cfg), nn.Identity())


@pytest.mark.parametrize(
    "steps",
    [
        [dict(type="Resize", scale=(-1, 80)), dict(type="CenterCrop", crop_size=64)],
        [dict(type="CenterCrop", crop_size=64)],
    ],
)
def test_a_cut_takes_the_middle(steps):
    image = framing(*steps).apply(panorama(), (64, 64))
    assert image.shape == (64, 64, 3)
    assert (image[..., 1] > 200).all() and (image[:, 8:-8, 0] < 50).all()


def test_proportions_are_kept_by_padding():
    image = framing(dict(type="Resize", scale=(96, 96), keep_ratio=True)).apply(
        panorama(), (96, 96)
    )
    assert image[16].tolist() == [[255, 0, 0]] * 32 + [[0, 255, 0]] * 32 + [[0, 0, 255]] * 32
    assert not image[32:].any()


def test_a_pipeline_that_squeezes_is_followed():
    image = framing(dict(type="Resize", scale=(96, 96), keep_ratio=False)).apply(
        panorama(), (96, 96)
    )
    assert image[90].argmax(-1).tolist() == [0] * 32 + [1] * 32 + [2] * 32


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_base_patch32_clip_224.openai"]
)
def test_a_timm_model_sees_what_timm_gives_it(name):
    expected_cfg = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    image = np.random.default_rng(0).integers(0, 256, (120, 360, 3), np.uint8)
    expected = create_transform(**expected_cfg)(Image.fromarray(image))
    cfg = token_run.timm_config(name, False)
    with torch.device("meta"):
        model = build_model(cfg)
    frame = Framing.of(cfg, model).apply(image, (224, 224))
    pixels = torch.from_numpy(token_run._for_model(frame[None], model, clip=False))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)
