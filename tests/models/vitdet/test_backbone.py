from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from mmvitaccel.registry import MODELS

SMALL = dict(
    img_size=64, patch_size=8, embed_dim=24, depth=4, num_heads=3, window_size=3,
    window_block_indexes=(0, 2), pretrain_img_size=32,
)  # fmt: skip


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of some size everywhere, so that no part can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def slow_vitdet(state, img, patch, heads, windows, depth, window_size):
    """ViTDet as published: padding before the qkv layer, the bias of all pairs in memory."""
    x = F.conv2d(img, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], patch)
    x = x.permute(0, 2, 3, 1)
    grid = x.shape[1:3]
    positions = state["pos_embed"][:, 1:]
    side = math.isqrt(positions.shape[1])
    positions = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    positions = F.interpolate(positions, grid, mode="bicubic", align_corners=False)
    x = x + positions.permute(0, 2, 3, 1)
    for i in range(depth):
        block = {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
        h = F.layer_norm(x, x.shape[-1:], block["norm1.weight"], block["norm1.bias"], 1e-6)
        if i in windows:
            out = torch.zeros_like(h)
            padded = F.pad(h, (0, 0, 0, -grid[1] % window_size, 0, -grid[0] % window_size))
            for top in range(0, grid[0], window_size):
                for left in range(0, grid[1], window_size):
                    square = padded[:, top : top + window_size, left : left + window_size]
                    square = slow_attention(square, block, heads)
                    room = out[:, top : top + window_size, left : left + window_size]
                    room.copy_(square[:, : room.shape[1], : room.shape[2]])
        else:
            out = slow_attention(h, block, heads)
        x = x + out
        h = F.layer_norm(x, x.shape[-1:], block["norm2.weight"], block["norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + F.linear(h, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return x.permute(0, 3, 1, 2)


def slow_attention(x, block, heads):
    """(B, H, W, C), with the output projection; the table's row is q - k + size - 1."""
    batch, height, width, channels = x.shape
    dim = channels // heads
    qkv = F.linear(x, block["attn.qkv.weight"], block["attn.qkv.bias"])
    q, k, v = qkv.reshape(batch, height * width, 3, heads, dim).permute(2, 0, 3, 1, 4)
    logits = (q * dim**-0.5) @ k.transpose(-1, -2)

    def resized(table, size):
        table = table.t()[None]
        return F.interpolate(table, size=2 * size - 1, mode="linear")[0].t()

    table_h = resized(block["attn.rel_pos_h"], height)
    table_w = resized(block["attn.rel_pos_w"], width)
    for i in range(height * width):
        for j in range(height * width):
            row = table_h[i // width - j // width + height - 1]
            column = table_w[i % width - j % width + width - 1]
            logits[:, :, i, j] += q[:, :, i] @ row + q[:, :, i] @ column
    x = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, height, width, channels)
    return F.linear(x, block["attn.proj.weight"], block["attn.proj.bias"])


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (24, 72), (72, 72)])
def test_equals_the_published_definition(size):
    model = randomise(ViTDet(**SMALL))
    img = torch.randn(2, 3, *size)
    with torch.no_grad():
        (out,) = model(img)
        expected = slow_vitdet(model.state_dict(), img, 8, 3, (0, 2), 4, 3)
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_an_image_that_ends_within_a_patch_is_padded_with_zeros():
    model = randomise(ViTDet(**SMALL))
    img = torch.randn(1, 3, 43, 50)
    with torch.no_grad():
        assert torch.equal(model(img)[0], model(F.pad(img, (0, 6, 0, 5)))[0])


def test_names_and_shapes_are_those_of_the_release():
    state = ViTDet().state_dict()
    expected = {
        "pos_embed": (1, 197, 768),
        "patch_embed.proj.weight": (768, 3, 16, 16),
        "patch_embed.proj.bias": (768,),
    }
    for i in range(12):
        side = 14 if i in (0, 1, 3, 4, 6, 7, 9, 10) else 64
        shapes = {
            "norm1.weight": (768,), "norm1.bias": (768,),
            "norm2.weight": (768,), "norm2.bias": (768,),
            "attn.qkv.weight": (2304, 768), "attn.qkv.bias": (2304,),
            "attn.proj.weight": (768, 768), "attn.proj.bias": (768,),
            "attn.rel_pos_h": (2 * side - 1, 64), "attn.rel_pos_w": (2 * side - 1, 64),
            "mlp.fc1.weight": (3072, 768), "mlp.fc1.bias": (3072,),
            "mlp.fc2.weight": (768, 3072), "mlp.fc2.bias": (768,),
        }  # fmt: skip
        expected.update({f"blocks.{i}.{name}": shape for name, shape in shapes.items()})
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


@pytest.mark.parametrize("class_token", [True, False])
def test_weights_for_another_grid_are_interpolated_when_loaded(class_token):
    large = randomise(ViTDet(**{**SMALL, "img_size": 96, "pretrain_img_size": 48}))
    state = large.state_dict()
    if not class_token:
        state["pos_embed"] = state["pos_embed"][:, 1:]
    small = ViTDet(**SMALL).eval()
    small.load_state_dict(state)
    # At 64 pixels the large model interpolates its tables itself; absolute positions go through
    # 4 x 4, so they are compared at that size.
    img = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(small.positions((4, 4)), large.positions((4, 4)))
    for ours, theirs in zip(small.blocks, large.blocks):
        ours.load_state_dict(theirs.state_dict())
    img = torch.randn(1, 24, 8, 8).permute(0, 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(small.blocks[1](img), large.blocks[1](img))


def test_checkpointing_changes_no_gradient_and_drop_path_is_off_in_eval():
    plain, saving = (
        randomise(ViTDet(**SMALL, with_cp=with_cp, drop_path_rate=0.5)) for with_cp in (False, True)
    )
    img = torch.randn(2, 3, 40, 40)
    for model in (plain, saving):
        model(img)[0].square().mean().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    saving.train()
    torch.manual_seed(3)
    dropped = saving(img)[0]
    assert not torch.allclose(dropped, plain(img)[0])


def test_bfloat16_and_autocast_follow_single_precision():
    model = randomise(ViTDet(**SMALL))
    img = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        (expected,) = model(img)
        positions = model.positions((5, 7))
        with torch.autocast("cpu", torch.bfloat16):
            (mixed,) = model(img)
            assert torch.equal(model.positions((5, 7)), positions)
        (half,) = model.bfloat16()(img.bfloat16())
    scale = expected.std()
    assert half.dtype == torch.bfloat16
    assert (mixed.float() - expected).abs().mean() < 0.02 * scale
    assert (half.float() - expected).abs().mean() < 0.05 * scale


def test_traced_model_equals_the_eager_one():
    model = randomise(ViTDet(**SMALL))
    img = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        traced = torch.jit.trace(model, img)
        other = torch.randn_like(img)
        torch.testing.assert_close(traced(other)[0], model(other)[0])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="embed_dim=24 is not divisible by num_heads=5"):
        ViTDet(embed_dim=24, num_heads=5)
    with pytest.raises(ValueError, match=r"\(0, 4\) names a block that depth=4 does not have"):
        ViTDet(**{**SMALL, "window_block_indexes": (0, 4)})
    with pytest.raises(ValueError, match="num_outs=3 is below the 4 scale_factors"):
        SimpleFPN(num_outs=3)
    with pytest.raises(ValueError, match=r"scale factor 8\.0"):
        SimpleFPN(scale_factors=(8.0,))


def test_pyramid_equals_its_layers_one_by_one():
    neck = randomise(
        MODELS.build(dict(type="mmvitaccel.SimpleFPN", in_channels=16, out_channels=8))
    )
    state = neck.state_dict()
    x = torch.randn(2, 16, 6, 10)

    def norm(x, name):
        mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-6).sqrt()
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return x * weight[:, None, None] + bias[:, None, None]

    def out(x, path, first):
        x = norm(F.conv2d(x, state[f"{path}.{first}.weight"]), f"{path}.{first}.norm")
        x = F.conv2d(x, state[f"{path}.{first + 1}.weight"], padding=1)
        return norm(x, f"{path}.{first + 1}.norm")

    def up(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)

    expected = [
        out(up(F.gelu(norm(up(x, "simfp_2.0"), "simfp_2.1")), "simfp_2.3"), "simfp_2", 4),
        out(up(x, "simfp_3.0"), "simfp_3", 1),
        out(x, "simfp_4", 0),
        out(F.max_pool2d(x, 2, 2), "simfp_5", 1),
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    with torch.no_grad():
        levels = neck((x,))
    assert [tuple(level.shape[2:]) for level in levels] == [
        (24, 40),
        (12, 20),
        (6, 10),
        (3, 5),
        (2, 3),
    ]
    for level, wanted in zip(levels, expected):
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)
