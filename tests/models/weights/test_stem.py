"""Backbones for images of other channels, from weights of three."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.kernels.library.choice import chosen
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.compiled import CompiledEfficientViT
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vivit.backbone import ViViT
from mmvitaccel.models.weights.stem import adapt_channels

EFFICIENTVIT = dict(arch="m0", window_size=4)
VITDET = dict(
    img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, pretrain_img_size=32,
    window_block_indexes=(),
)  # fmt: skip
VIVIT = dict(
    img_size=16, num_frames=2, tubelet_size=(2, 8, 8), embed_dim=24, spatial_depth=1,
    temporal_depth=1, num_heads=3,
)  # fmt: skip
CASES = [(EfficientViT, EFFICIENTVIT, (64, 64)), (ViTDet, VITDET, (32, 32))]
CASES.append((ViViT, VIVIT, (2, 16, 16)))


def filled(model):
    noise = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=noise) * 0.1
    return model.eval()


def pretrained(kind, size, channels, path):
    cfg = dict(type="Pretrained", checkpoint=str(path))
    model = kind(**size, in_channels=channels, init_cfg=cfg)
    model.init_weights()
    return model.eval()


def outputs(model, x):
    out = model(x)
    return out if isinstance(out, torch.Tensor) else out[-1]


@pytest.mark.parametrize(("kind", "size", "sides"), CASES, ids=lambda v: getattr(v, "__name__", ""))
@torch.no_grad()
def test_equal_channels_give_what_three_gave(kind, size, sides, tmp_path):
    """A grey image as 1, 4 or 6 equal channels is to the adapted stem what it was as three."""
    model = filled(kind(**size))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    grey = torch.rand(2, 1, *sides)
    expected = outputs(model, grey.repeat(1, 3, *[1] * len(sides)))
    for channels in (1, 6):
        adapted = pretrained(kind, size, channels, tmp_path / "x.pth")
        found = outputs(adapted, grey.repeat(1, channels, *[1] * len(sides)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    four = pretrained(kind, size, 4, tmp_path / "x.pth")
    stem = model.state_dict()[model.STEM]
    expected = torch.cat((stem, stem[:, :1]), 1) * 3 / 4
    torch.testing.assert_close(four.state_dict()[model.STEM], expected)


def test_channels_are_repeated_and_scaled_or_summed():
    weight = torch.arange(3.0).view(1, 3, 1, 1)
    assert adapt_channels(weight, 1).flatten().tolist() == [3.0]
    assert adapt_channels(weight, 4).flatten().tolist() == [0.0, 0.75, 1.5, 0.0]
    assert adapt_channels(torch.tensor([[6.0]]), 3).tolist() == [[2.0, 2.0, 2.0]]
    half = adapt_channels(weight.half(), 6)
    assert half.dtype == torch.float16
    assert half.sum() == weight.sum()


@pytest.mark.parametrize("channels", [1, 4, 6])
@torch.no_grad()
def test_images_of_other_channels(channels):
    model = EfficientViT(**EFFICIENTVIT, in_channels=channels).eval()
    levels = model(torch.rand(1, channels, 64, 64))
    assert [tuple(x.shape) for x in levels] == [(1, 64, 4, 4), (1, 128, 2, 2), (1, 192, 1, 1)]
    sentence = rf"the input is \(1, 3, 64, 64\); it must be images \(B, {channels}, H, W\)"
    with pytest.raises(ValueError, match=sentence):
        model(torch.rand(1, 3, 64, 64))


def test_no_channels():
    with pytest.raises(
        ValueError, match="EfficientViT: in_channels=0 must be a whole number, at least 1"
    ):
        EfficientViT("m0", in_channels=0)


@pytest.mark.parametrize("channels", [1, 4, 6])
@torch.no_grad()
def test_compiled_steps_of_other_channels(channels):
    if chosen().library is None:
        pytest.skip(chosen().why)
    model = filled(EfficientViT(**EFFICIENTVIT, in_channels=channels))
    x = torch.rand(2, channels, 65, 80)
    for found, expected in zip(CompiledEfficientViT(model)(x), model(x)):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(ValueError, match=rf"must be images \(B, {channels}, H, W\) in float32"):
        CompiledEfficientViT(model)(torch.rand(2, channels + 1, 64, 64))
