"""The pyramid against a slow one of plain torch calls, and the released names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.fpn import EfficientViTFPN
from mmvitaccel.registry import MODELS


@pytest.fixture(autouse=True)
def _seeded(one_thread):
    torch.manual_seed(0)


def pyramid_slowly(weights: dict[str, Tensor], inputs: list[Tensor], extra: int, num_outs: int):
    """From the parameters by name; nearest neighbours and transposed convolution by hand."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.conv.weight"]
        return F.conv2d(x, weight, weights[f"{name}.conv.bias"], padding=weight.shape[-1] // 2)

    def double(name: str, x: Tensor) -> Tensor:
        weight, bias = weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
        out = x.new_zeros(len(x), weight.shape[1], 2 * x.shape[2], 2 * x.shape[3])
        for row in range(2):
            for column in range(2):
                part = torch.einsum("bihw,io->bohw", x, weight[:, :, row, column])
                out[:, :, row::2, column::2] = part + bias[:, None, None]
        return out

    laterals = [conv(f"lateral_convs.{i}", x) for i, x in enumerate(inputs)]
    for i in reversed(range(len(laterals) - 1)):
        (height, width), coarse = laterals[i].shape[2:], laterals[i + 1]
        rows = torch.arange(height) * coarse.shape[2] // height
        columns = torch.arange(width) * coarse.shape[3] // width
        laterals[i] = laterals[i] + coarse[:, :, rows][..., columns]
    outs = [conv(f"fpn_convs.{i}", x) for i, x in enumerate(laterals)]
    finer, x = [], laterals[0]
    for i in range(extra):
        x = double(f"extra_trans_convs.{i}", x)
        finer = [x, *finer]
    outs = [conv(f"extra_fpn_convs.{i}", x) for i, x in enumerate(finer)] + outs
    while len(outs) < num_outs:
        outs.append(outs[-1][..., ::2, ::2])
    return outs


@pytest.mark.parametrize("extra, num_outs", [(0, 3), (0, 5), (1, 5), (2, 5), (2, 7)])
def test_pyramid_equals_the_slow_one(randomise, extra, num_outs):
    neck = randomise(EfficientViTFPN([4, 6, 8], 5, num_outs, extra))
    inputs = [torch.rand(2, c, *s) for c, s in zip((4, 6, 8), ((9, 14), (5, 7), (3, 4)))]
    with torch.no_grad():
        outs = neck(inputs)
    expected = pyramid_slowly(neck.state_dict(), inputs, extra, num_outs)
    assert isinstance(outs, tuple) and len(outs) == num_outs
    for out, other in zip(outs, expected):
        torch.testing.assert_close(out, other, rtol=1e-4, atol=1e-5)


def test_retinanet_levels_have_strides_8_to_128():
    neck = MODELS.build(
        dict(
            type="mmvitaccel.EfficientViTFPN",
            in_channels=[64, 128, 192],
            out_channels=16,
            num_outs=5,
            num_extra_trans_convs=1,
        )
    )
    neck.init_weights()
    outs = neck(EfficientViT("m0").eval()(torch.rand(1, 3, 256, 384)))
    sizes = [(256 // stride, 384 // stride) for stride in (8, 16, 32, 64, 128)]
    assert [tuple(out.shape[2:]) for out in outs] == sizes
    sum(out.square().mean() for out in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(num_outs=3, num_extra_trans_convs=1), r"num_outs=3 is less .* set num_outs >= 4"),
        (dict(num_outs=5, num_extra_trans_convs=-1), "num_extra_trans_convs=-1"),
        (dict(num_outs=5, in_channels=[]), r"in_channels=\[\] must be one or more whole"),
    ],
)
def test_arguments_out_of_range_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EfficientViTFPN(**{"in_channels": [4, 6, 8], "out_channels": 4, **kwargs})


def test_wrong_channels_are_named():
    neck = EfficientViTFPN([4, 6], 4, 2)
    message = r"have \(4, 8\) channels; .* instead of \(4, 6\)"
    with pytest.raises(ValueError, match=message):
        neck([torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)])


def released_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes in the released RetinaNet-M4 checkpoint, backbone and neck, in its order."""
    widths, depths, kernels = (128, 256, 384), (1, 2, 3), (7, 5, 3, 3)
    names: dict[str, tuple[int, ...]] = {}

    def conv_norm(name: str, out: int, inside: int, kernel: int = 1) -> None:
        names[f"{name}.c.weight"] = (out, inside, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"{name}.bn.{part}"] = (out,)
        names[f"{name}.bn.num_batches_tracked"] = ()

    def feed_forward(name: str, width: int) -> None:
        conv_norm(f"{name}.m.pw1", 2 * width, width)
        conv_norm(f"{name}.m.pw2", width, 2 * width)

    for i, (before, after) in enumerate([(3, 16), (16, 32), (32, 64), (64, 128)]):
        conv_norm(f"backbone.patch_embed.{2 * i}", after, before, 3)
    for stage, (width, depth) in enumerate(zip(widths, depths)):
        blocks, first = f"backbone.blocks{stage + 1}", 0
        if stage:
            before, first = widths[stage - 1], 3
            conv_norm(f"{blocks}.0.0.m", before, 1, 3)
            feed_forward(f"{blocks}.0.1", before)
            conv_norm(f"{blocks}.1.conv1", 4 * before, before)
            conv_norm(f"{blocks}.1.conv2", 4 * before, 1, 3)
            names[f"{blocks}.1.se.fc1.weight"] = (before, 4 * before, 1, 1)
            names[f"{blocks}.1.se.fc1.bias"] = (before,)
            names[f"{blocks}.1.se.fc2.weight"] = (4 * before, before, 1, 1)
            names[f"{blocks}.1.se.fc2.bias"] = (4 * before,)
            conv_norm(f"{blocks}.1.conv3", width, 4 * before)
            conv_norm(f"{blocks}.2.0.m", width, 1, 3)
            feed_forward(f"{blocks}.2.1", width)
        for block in range(first, first + depth):
            name = f"{blocks}.{block}"
            attn = f"{name}.mixer.m.attn"
            conv_norm(f"{name}.dw0.m", width, 1, 3)
            feed_forward(f"{name}.ffn0", width)
            names[f"{attn}.attention_biases"] = (4, 49)
            names[f"{attn}.attention_bias_idxs"] = (49, 49)
            for head in range(4):
                conv_norm(f"{attn}.qkvs.{head}", 32 + width // 4, width // 4)
            for head, kernel in enumerate(kernels):
                conv_norm(f"{attn}.dws.{head}", 16, 1, kernel)
            conv_norm(f"{attn}.proj.1", width, width)
            conv_norm(f"{name}.dw1.m", width, 1, 3)
            feed_forward(f"{name}.ffn1", width)
    neck = [("lateral_convs", width, 1) for width in widths] + [("fpn_convs", 256, 3)] * 3
    neck += [("extra_trans_convs", 256, 2), ("extra_fpn_convs", 256, 3)]
    for i, (name, inside, kernel) in enumerate(neck):
        name = f"neck.{name}.{i % 3 if i < 6 else 0}.conv"
        names[f"{name}.weight"] = (256, inside, kernel, kernel)
        names[f"{name}.bias"] = (256,)
    return names


def test_names_and_shapes_are_those_of_the_released_retinanet():
    parts = dict(backbone=EfficientViT("m4"), neck=EfficientViTFPN([128, 256, 384], 256, 5, 1))
    own = torch.nn.ModuleDict(parts).state_dict()
    expected = released_names()
    assert len(expected) == 708
    assert [(k, tuple(v.shape)) for k, v in own.items()] == list(expected.items())
