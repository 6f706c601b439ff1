"""Image and video transformers: MAE's as a detector's backbone, ViViT in three layouts.

Against timm's and torchvision's own blocks, whose maths is that of the published models.
"""

from __future__ import annotations

import functools
import re

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import EncoderBlock

from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vivit.backbone import ViViT

EPS = 1e-6


def mae_base(fill):
    """timm's ViT-B, whose names MAE's files have, with MAE's class token and decoder."""
    model = timm.create_model("vit_base_patch16_224", num_classes=0).eval().requires_grad_(False)
    weights = fill({name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict(weights)
    decoder = {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512)}
    decoder |= {"decoder_embed.weight": (512, 768), "decoder_blocks.0.norm1.weight": (512,)}
    return model, weights | fill(decoder)


def test_mae_as_a_detectors_backbone(fill, convert):
    model, weights = mae_base(fill)
    converted = convert(weights, "mae-vit")
    backbone = {name.removeprefix("backbone."): value for name, value in converted.items()}
    # Without windows and relative positions the detector's blocks are the image transformer's.
    ours = ViTDet(img_size=224, window_block_indexes=(), use_rel_pos=False).eval()
    ours.load_state_dict(backbone, strict=True)
    img = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = model.patch_embed(img) + weights["pos_embed"][:, 1:]
        x = model.blocks(x).transpose(1, 2).unflatten(2, (14, 14))
        torch.testing.assert_close(ours(img)[0], x, rtol=1e-3, atol=1e-3)


def test_image_transformer_as_vivits_spatial_encoder(fill, convert):
    model, weights = mae_base(fill)
    converted = convert(weights, "vit-as-vivit", recognised=False)
    ours = ViViT(num_frames=4).eval()
    backbone = {name.removeprefix("backbone."): value for name, value in converted.items()}
    missing, surplus = ours.load_state_dict(backbone, strict=False)
    assert not surplus and all(name.startswith("temporal.") for name in missing)
    clip = torch.randn(1, 3, 2, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.forward_features(clip[:, :, 1])[:, :1]
        found = ours.forward_spatial(clip)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_blocks_that_are_not_plain_are_refused(fill, convert):
    weights = {"cls_token": torch.ones(1, 1, 8), "patch_embed.proj.weight": torch.ones(8, 3, 2, 2)}
    weights |= {"blocks.0.attn.qkv.weight": torch.ones(24, 8), "blocks.0.ls1.gamma": torch.ones(8)}
    with pytest.raises(ValueError, match=r"released\.pth: its blocks have 'blocks\.0\.ls1\.gamma'"):
        convert(weights, "mae-vit")


GRID, STEPS = 4, 3  # tokens a side and time steps; depth, widths and heads are ViViT-B's


def tadaconv(heads):
    """Names and shapes of TAdaConv's factorised ViViT-B."""
    shapes = {
        "stem.conv1.weight": (768, 3, 2, 16, 16),
        "stem.conv1.bias": (768,),
        "cls_token": (1, 1, 768),
        "pos_embd": (1, GRID**2 + 1, 768),
        "cls_token_out": (1, 1, 768),
        "temp_embd": (1, STEPS + 1, 768),
    }
    norms = ["norm", "norm_out"]
    for layers, depth in (("layers", 12), ("layers_temporal", 4)):
        for i in range(depth):
            norms += [f"{layers}.{i}.norm", f"{layers}.{i}.norm_ffn"]
            for part, out, inn in (
                ("attn.to_qkv", 2304, 768),
                ("attn.proj", 768, 768),
                ("ffn.net.0", 3072, 768),
                ("ffn.net.3", 768, 3072),
            ):
                shapes[f"{layers}.{i}.{part}.weight"] = (out, inn)
                shapes[f"{layers}.{i}.{part}.bias"] = (out,)
    shapes |= {f"{norm}.{kind}": (768,) for norm in norms for kind in ("weight", "bias")}
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    for name, classes in heads.items():
        shapes |= {f"head.{name}.weight": (classes, 768), f"head.{name}.bias": (classes,)}
    return shapes


def encode(weights, layers, x):
    """torchvision's blocks with weights of one encoder: pre-norm, fused queries, keys, values."""
    norm = functools.partial(nn.LayerNorm, eps=EPS)
    names = {
        "norm": "ln_1", "attn.proj": "self_attention.out_proj", "norm_ffn": "ln_2",
        "ffn.net.0": "mlp.0", "ffn.net.3": "mlp.3",
    }  # fmt: skip
    depth = len({name.split(".")[2] for name in weights if f".{layers}." in name})
    for i in range(depth):
        block = EncoderBlock(12, 768, 3072, 0.0, 0.0, norm_layer=norm).eval().requires_grad_(False)
        source = f"backbone.{layers}.{i}"
        state = {
            f"self_attention.in_proj_{kind}": weights[f"{source}.attn.to_qkv.{kind}"]
            for kind in ("weight", "bias")
        }
        for theirs, torchvisions in names.items():
            for kind in ("weight", "bias"):
                state[f"{torchvisions}.{kind}"] = weights[f"{source}.{theirs}.{kind}"]
        block.load_state_dict(state, strict=True)
        x = block(x)
    return x


def published(weights, clip):
    """The temporal class token of one clip by the published definition."""
    w = {name.removeprefix("backbone."): value for name, value in weights.items()}

    def norm(name, x):
        return F.layer_norm(x, (768,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    tokens = F.conv3d(clip, w["stem.conv1.weight"], w["stem.conv1.bias"], stride=(2, 16, 16))
    tokens = tokens[0].flatten(2).permute(1, 2, 0)  # (steps, grid, 768)
    x = torch.cat((w["cls_token"].expand(STEPS, -1, -1), tokens), 1) + w["pos_embd"]
    x = norm("norm", encode(weights, "layers", x)[:, 0])
    x = torch.cat((w["cls_token_out"][0], x))[None] + w["temp_embd"]
    return norm("norm_out", encode(weights, "layers_temporal", x)[:, 0])


def as_named_by_the_paper(weights):
    """Names of the Eventful Transformers paper's own ViViT."""
    rules = (
        (r"backbone\.stem\.conv1", "embedding.conv"),
        (r"backbone\.cls_token$", "spatial_model.class_token"),
        (r"backbone\.cls_token_out", "temporal_model.class_token"),
        (r"backbone\.pos_embd", "spatial_model.backbone.position_encoding.encoding"),
        (r"backbone\.temp_embd", "temporal_model.backbone.position_encoding.encoding"),
        (r"backbone\.norm\.", "spatial_model.layer_norm."),
        (r"backbone\.norm_out\.", "temporal_model.layer_norm."),
        (r"backbone\.layers\.", "spatial_model.backbone.blocks."),
        (r"backbone\.layers_temporal\.", "temporal_model.backbone.blocks."),
        (r"(blocks\.\d+)\.norm\.", r"\1.input_layer_norm."),
        (r"(blocks\.\d+)\.norm_ffn\.", r"\1.mlp_layer_norm."),
        (r"attn\.to_qkv", "qkv"),
        (r"attn\.proj", "projection"),
        (r"ffn\.net\.0", "mlp_1"),
        (r"ffn\.net\.3", "mlp_2"),
        (r"head\.linear1?\.", "classifier."),
    )
    renamed = {}
    for name, value in weights.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


SIZE = {"model.backbone.img_size": 16 * GRID, "model.backbone.num_frames": 2 * STEPS}
K400, EPIC = (
    "vivit/vivit-base_32x2x1_kinetics400-rgb.py",
    "vivit/vivit-base_32x2x1_epic-kitchens100-rgb.py",
)


@pytest.mark.parametrize("layout", ["tadaconv-vivit", "eventful-vivit"])
def test_vivit_for_kinetics(layout, fill, convert, build_from):
    weights = fill(tadaconv({"linear": 400}))
    held = as_named_by_the_paper(weights) if layout == "eventful-vivit" else weights
    model = build_from(K400, convert(held, layout), **SIZE)
    clip = torch.randn(
        1, 3, 2 * STEPS, *(16 * GRID,) * 2, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = published(weights, clip)
        torch.testing.assert_close(model.backbone(clip), expected, rtol=1e-3, atol=1e-3)
        expected = F.linear(expected, weights["head.linear.weight"], weights["head.linear.bias"])
        found = model.cls_head(model.backbone(clip))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_vivit_for_epic_kitchens(fill, convert, build_from):
    weights = fill(tadaconv({"linear1": 97, "linear2": 300}))
    converted = convert(weights, "tadaconv-vivit")
    model = build_from(EPIC, converted, **SIZE)
    x = torch.randn(2, 768, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.cls_head(x)
    for ours, theirs in (("verb", "linear1"), ("noun", "linear2")):
        expected = F.linear(x, weights[f"head.{theirs}.weight"], weights[f"head.{theirs}.bias"])
        torch.testing.assert_close(found[ours], expected, rtol=1e-4, atol=1e-4)
    # The paper's own files of verbs: the rest is the same, and there is no classifier of nouns.
    verbs = {name: value for name, value in weights.items() if "linear2" not in name}
    again = convert(as_named_by_the_paper(verbs), "eventful-vivit")
    assert again.keys() == {name for name in converted if "fc_noun" not in name}
    assert all(again[name] is converted[name] for name in again)
    model = build_from(EPIC, again, **SIZE, **{"model.cls_head.num_nouns": 0})
    with torch.no_grad():
        assert model.cls_head(x).keys() == {"verb"}
        assert torch.equal(model.cls_head(x)["verb"], found["verb"])
