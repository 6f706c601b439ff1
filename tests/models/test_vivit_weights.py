"""Weights of the released layout, made up here by its published definition."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.models.vivit import ViViT
from mmvitaccel.models.vivit_weights import convert_vivit_weights

DIM, STEPS, PATCHES = 24, 4, 16
SIZE = dict(
    img_size=32, num_frames=8, tubelet_size=(2, 8, 8), embed_dim=DIM, spatial_depth=2, num_heads=3
)


def released(temporal_depth: int = 1) -> dict[str, torch.Tensor]:
    """Names and shapes as they are in the public files, values at random."""
    shapes = {
        "stem.conv1.weight": (DIM, 3, 2, 8, 8),
        "stem.conv1.bias": (DIM,),
        "cls_token": (1, 1, DIM),
        "pos_embd": (1, PATCHES + 1, DIM),
        "cls_token_out": (1, 1, DIM),
        "temp_embd": (1, STEPS + 1, DIM),
    }
    norms = ["norm", "norm_out"]
    for layers, depth in (("layers", 2), ("layers_temporal", temporal_depth)):
        for i in range(depth):
            block = f"{layers}.{i}"
            norms += [f"{block}.norm", f"{block}.norm_ffn"]
            for name, out, inn in (
                ("attn.to_qkv", 3 * DIM, DIM),
                ("attn.proj", DIM, DIM),
                ("ffn.net.0", 4 * DIM, DIM),
                ("ffn.net.3", DIM, 4 * DIM),
            ):
                shapes[f"{block}.{name}.weight"] = (out, inn)
                shapes[f"{block}.{name}.bias"] = (out,)
    for norm in norms:
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (DIM,)
    torch.manual_seed(0)
    weights = {f"backbone.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    return weights | {"head.linear.weight": torch.randn(7, DIM), "head.linear.bias": torch.randn(7)}


def published_forward(w: dict, x: torch.Tensor) -> torch.Tensor:
    """The published model's forward under its own names, for one clip (3, T, H, W)."""

    def linear(name, y):
        return torch.nn.functional.linear(y, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name, y):
        return torch.nn.functional.layer_norm(
            y, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6
        )

    def layer(name, y):
        h = norm(f"{name}.norm", y)
        q, k, v = linear(f"{name}.attn.to_qkv", h).reshape(len(y), 3, 3, -1).permute(1, 2, 0, 3)
        attention = (q @ k.transpose(1, 2) * (DIM // 3) ** -0.5).softmax(-1)
        y = y + linear(f"{name}.attn.proj", (attention @ v).transpose(0, 1).reshape(len(y), DIM))
        hidden = torch.nn.functional.gelu(linear(f"{name}.ffn.net.0", norm(f"{name}.norm_ffn", y)))
        return y + linear(f"{name}.ffn.net.3", hidden)

    w = {name.removeprefix("backbone."): value for name, value in w.items()}
    tokens = torch.nn.functional.conv3d(
        x[None], w["stem.conv1.weight"], w["stem.conv1.bias"], stride=(2, 8, 8)
    )[0]
    steps = []
    for t in range(STEPS):
        y = torch.cat([w["cls_token"][0], tokens[:, t].flatten(1).T]) + w["pos_embd"][0]
        for i in range(2):
            y = layer(f"layers.{i}", y)
        steps.append(norm("norm", y)[0])
    y = torch.cat([w["cls_token_out"][0], torch.stack(steps)]) + w["temp_embd"][0]
    y = norm("norm_out", layer("layers_temporal.0", y))
    return y[0]


def test_released_weights_load_strictly_and_give_the_published_output():
    weights = convert_vivit_weights(released())
    assert {n for n in weights if n.startswith("cls_head")} == {
        "cls_head.fc_cls.weight",
        "cls_head.fc_cls.bias",
    }
    model = ViViT(**SIZE, temporal_depth=1).eval()
    backbone = {n.removeprefix("backbone."): v for n, v in weights.items() if "backbone" in n}
    model.load_state_dict(backbone, strict=True)
    x = torch.randn(2, 3, 8, 32, 32)
    expected = torch.stack([published_forward(released(), clip) for clip in x])
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


def test_verb_and_noun_classifiers():
    weights = released()
    for old, new in (("head.linear", "head.linear1"), ("head.linear", "head.linear2")):
        for kind in ("weight", "bias"):
            weights[f"{new}.{kind}"] = weights[f"{old}.{kind}"]
    converted = convert_vivit_weights(weights)
    assert torch.equal(converted["cls_head.fc_verb.weight"], weights["head.linear1.weight"])
    assert torch.equal(converted["cls_head.fc_noun.bias"], weights["head.linear2.bias"])


def image_model() -> dict[str, torch.Tensor]:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=DIM, depth=2, num_heads=3
    )


def test_image_transformer_becomes_the_spatial_encoder():
    """A clip that shows one picture at the middle frame of a tubelet: timm's own class token."""
    image = image_model().eval()
    weights = convert_vivit_weights(image.state_dict())
    model = ViViT(**SIZE, temporal_depth=1).eval()
    backbone = {n.removeprefix("backbone."): v for n, v in weights.items()}
    missing, unexpected = model.load_state_dict(backbone, strict=False)
    assert not unexpected
    assert all(name.startswith("temporal.") for name in missing)
    x = torch.randn(1, 3, 2, 32, 32)
    expected = image.forward_features(x[:, :, 1])[:, :1]
    torch.testing.assert_close(model.forward_spatial(x), expected, rtol=0, atol=1e-5)


def test_weights_of_something_else():
    with pytest.raises(ValueError, match=r"neither TAdaConv's .* first names are conv1\.weight"):
        convert_vivit_weights({"conv1.weight": torch.zeros(1)})
    odd = released() | {"backbone.layers.0.attn.to_kv.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"'backbone\.layers\.0\.attn\.to_kv\.weight' is not"):
        convert_vivit_weights(odd)
