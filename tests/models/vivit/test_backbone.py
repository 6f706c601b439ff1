"""ViViT against the published definition, written out slowly, and against counts by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import load_state_dict

from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.models.vivit.backbone import VIVIT_SIZES, ViViT
from mmvitaccel.registry import MODELS

SMALL = dict(
    img_size=32,
    num_frames=8,
    tubelet_size=(2, 8, 8),
    embed_dim=24,
    spatial_depth=3,
    temporal_depth=2,
    num_heads=3,
)


def make(seed: int = 0, **kwargs) -> ViViT:
    """A small model whose every parameter differs from its neighbours and from zero."""
    torch.manual_seed(seed)
    model = ViViT(**{**SMALL, **kwargs})
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model.eval()


def clips(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_norm(w: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_linear(w: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def slow_encoder(w: dict, name: str, tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Class token and positions first, pre-norm blocks, norm, class token out: (N, C) to (C,)."""
    x = torch.cat([w[f"{name}.cls_token"][0], tokens]) + w[f"{name}.pos_embed"][0]
    depth = 1 + max(int(key.split(".")[2]) for key in w if key.startswith(f"{name}.blocks."))
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        q, k, v = slow_linear(w, f"{block}.attn.qkv", slow_norm(w, f"{block}.norm1", x)).chunk(3, 1)
        width = q.shape[1] // heads
        out = []
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            weights = (q[:, own] @ k[:, own].T / width**0.5).exp()
            out.append(weights / weights.sum(1, keepdim=True) @ v[:, own])
        x = x + slow_linear(w, f"{block}.attn.proj", torch.cat(out, 1))
        hidden = slow_linear(w, f"{block}.mlp.fc1", slow_norm(w, f"{block}.norm2", x))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + slow_linear(w, f"{block}.mlp.fc2", hidden)
    return slow_norm(w, f"{name}.norm", x)[0]


def slow_vivit(model: ViViT, x: torch.Tensor, heads: int) -> torch.Tensor:
    """One clip (C, T, H, W), a tubelet and a step at a time, in double precision."""
    w = {key: value.double() for key, value in model.state_dict().items()}
    dt, dh, dw = model.tubelet_size
    kernel = w["patch_embed.weight"].flatten(1)
    steps = []
    for t in range(0, x.shape[1], dt):
        tokens = [
            kernel @ x[:, t : t + dt, i : i + dh, j : j + dw].double().flatten()
            + w["patch_embed.bias"]
            for i in range(0, x.shape[2], dh)
            for j in range(0, x.shape[3], dw)
        ]
        steps.append(slow_encoder(w, "spatial", torch.stack(tokens), heads))
    return slow_encoder(w, "temporal", torch.stack(steps), heads)


def test_equals_the_published_definition():
    model, x = make(), clips(2, 3, 8, 32, 32)
    expected = torch.stack([slow_vivit(model, clip, heads=3) for clip in x])
    out = model(x)
    assert out.shape == (2, 24)
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=1e-5)


def test_tubelets_that_are_not_square_and_pictures_that_are_not():
    options = dict(img_size=(16, 24), num_frames=6, tubelet_size=(3, 8, 4), in_channels=2)
    model, x = make(**options), clips(1, 2, 6, 16, 24)
    torch.testing.assert_close(
        model(x)[0], slow_vivit(model, x[0], heads=3).float(), rtol=0, atol=1e-5
    )


def test_a_clip_is_encoded_alike_in_any_batch():
    model, x = make(), clips(3, 3, 8, 32, 32)
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), alone, rtol=1e-5, atol=1e-6)


def test_other_lengths_and_resolutions_resize_positions():
    model, x = make(), clips(1, 3, 12, 48, 16)
    resized = make(img_size=(48, 16), num_frames=12)
    weights = copy.deepcopy(model.state_dict())
    for name, old, new in (("spatial", (4, 4), (6, 2)), ("temporal", (4,), (6,))):
        positions = weights[f"{name}.pos_embed"]
        grid = positions[:, 1:].transpose(1, 2).reshape(1, 24, *old)
        mode = "bilinear" if len(old) == 2 else "linear"
        grid = F.interpolate(grid, new, mode=mode, align_corners=False).flatten(2).transpose(1, 2)
        weights[f"{name}.pos_embed"] = torch.cat([positions[:, :1], grid], 1)
    resized.load_state_dict(weights)
    expected = slow_vivit(resized, x[0], heads=3).float()
    torch.testing.assert_close(model(x)[0], expected, rtol=0, atol=1e-5)
    # The same when the weights are loaded into a model of the other size.
    loaded = make(seed=5, img_size=(48, 16), num_frames=12)
    load_state_dict(loaded, model.state_dict(), strict=True)
    torch.testing.assert_close(loaded(x)[0], expected, rtol=0, atol=1e-5)


def test_steps_computed_before_are_taken_as_they_are():
    model, x = make(), clips(2, 3, 8, 32, 32)
    steps = model.forward_spatial(x)
    assert steps.shape == (2, 4, 24)
    assert torch.equal(model(steps), model(x))
    one_by_one = [model.forward_spatial(x[:, :, t : t + 2]) for t in range(0, 8, 2)]
    torch.testing.assert_close(torch.cat(one_by_one, 1), steps, rtol=1e-5, atol=1e-6)


def test_checkpointing_and_frozen_spatial_encoder_train_alike():
    x, gradients = clips(2, 3, 8, 32, 32), {}
    for name, options in {
        "plain": {},
        "cp": dict(with_cp=True),
        "frozen": dict(freeze_spatial=True),
    }.items():
        model = make(**options).train()
        model(x).square().sum().backward()
        gradients[name] = {n: p.grad for n, p in model.named_parameters()}
        modes = {n: m.training for n, m in model.named_modules() if n.startswith("spatial")}
        assert set(modes.values()) == {name != "frozen"}
    for name, expected in gradients["plain"].items():
        torch.testing.assert_close(gradients["cp"][name], expected)
        if name.startswith("temporal"):
            torch.testing.assert_close(gradients["frozen"][name], expected)
        else:
            assert gradients["frozen"][name] is None


def test_stochastic_depth_rises_linearly_over_both_encoders():
    model = make(drop_path_rate=0.4)
    rates = [
        getattr(b.drop_path, "drop_prob", 0)
        for b in [*model.spatial.blocks, *model.temporal.blocks]
    ]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x = clips(2, 3, 8, 32, 32)
    torch.testing.assert_close(model(x), make()(x))
    assert not torch.allclose(model.train()(x), model(x))


def test_bfloat16_stays_near_float32():
    model, x = make(), clips(2, 3, 8, 32, 32)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x)
    half = copy.deepcopy(model).to(torch.bfloat16)(x.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    for out in (mixed, half):
        error = (out.float() - expected).norm() / expected.norm()
        assert 1e-5 < error < 0.05


def block_macs(tokens: int, dim: int) -> int:
    """QKV, output and MLP (ratio 4) of each token, and the two attention products."""
    return tokens * dim * (3 * dim + dim + 8 * dim) + 2 * tokens**2 * dim


@pytest.mark.parametrize(
    ("arch", "side", "views", "expected"),
    [("base", 224, 12, 3.356e12), ("base", 320, 12, 7.114e12), ("large", 224, 1, None)],
)
def test_multiply_adds_of_the_published_sizes(arch, side, views, expected):
    size = VIVIT_SIZES[arch]
    dim, steps, patches = size["embed_dim"], 32 // 2, (side // 16) ** 2
    parts = {
        "patch_embed": steps * patches * dim * 3 * 2 * 16 * 16,
        "spatial": size["spatial_depth"] * steps * block_macs(1 + patches, dim),
        "temporal": size["temporal_depth"] * block_macs(1 + steps, dim),
    }
    with torch.device("meta"):
        model = ViViT(img_size=side, arch=arch)
        report = count_macs(model, torch.empty(1, 3, 32, side, side))
    assert report.parts() == parts
    assert report.uncounted == {}
    if expected is not None:
        without_embedding = views * (report.total - report.by_module["patch_embed"])
        assert without_embedding == pytest.approx(expected, rel=0.005)


def test_sizes_by_table_and_by_the_names_of_the_registry():
    with torch.device("meta"):
        large = MODELS.build(dict(type="mmvitaccel.ViViT", arch="large"))
        base, default = ViViT(arch="base"), ViViT()
    shapes = {k: v.shape for k, v in default.state_dict().items()}
    assert {k: v.shape for k, v in base.state_dict().items()} == shapes
    assert len(large.spatial.blocks) == 24
    assert large.spatial.pos_embed.shape == (1, 197, 1024)
    assert large.temporal.pos_embed.shape == (1, 17, 1024)
    assert (default.spatial.pos_embed.shape, len(default.temporal.blocks)) == ((1, 197, 768), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="huge"), "arch='huge' is not known; known are base, large"),
        (dict(arch="large", embed_dim=512), "embed_dim=512 was given with arch='large', .* 1024"),
        (dict(embed_dim=100), "embed_dim=100 is not a multiple of num_heads=12"),
        (dict(img_size=(224, 230)), "width=230 is not a multiple of the tubelet's 16"),
        (dict(num_frames=31), "frames=31 is not a multiple of the tubelet's 2"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ViViT(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 7, 32, 32), "frames=7 is not a multiple of the tubelet's 2"),
        ((1, 3, 8, 30, 32), "height=30 is not a multiple of the tubelet's 8"),
        ((1, 3, 0, 32, 32), "frames=0 is not"),
        ((1, 3, 32, 32), r"shape \(1, 3, 32, 32\); give clips as"),
        ((2, 4, 25), r"shape \(2, 4, 25\); give .* spatial class tokens as \(N, steps, 24\)"),
    ],
)
def test_inputs_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        make()(torch.zeros(shape))


def test_positions_of_a_grid_that_is_not_square_are_not_guessed():
    model, weights = make(), make(img_size=(16, 24)).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for spatial\.pos_embed"):
        model.load_state_dict(weights)
