"""Small models of every supported family, with weights that make each part count."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

from mmvitaccel.testing import models
from tests.adapters import hf_models, rfdetr_models


class Host(NamedTuple):
    """A model, an input for it, and what it reads of its tokens."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def timm_vit(**kwargs):
    from timm.models.vision_transformer import VisionTransformer

    size = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5)
    return VisionTransformer(**{**size, **kwargs})


def timm_distilled():
    from timm.models.deit import VisionTransformerDistilled

    return VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5
    )


def timm_eva(**kwargs):
    from timm.models.eva import Eva

    size = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5)
    return Eva(**{**size, **kwargs})


def timm_features_only():
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=64, features_only=True, out_indices=(0, 2), depth=3
    )


def videomae(**kwargs):
    pytest.importorskip("mmaction")
    size = dict(img_size=32, patch_size=8, embed_dims=32, depth=3, num_heads=4, num_frames=4)
    return models.videomae(**{**size, **kwargs})


def timesformer(attention_type):
    pytest.importorskip("mmaction")
    return models.timesformer(
        num_frames=2,
        img_size=32,
        patch_size=8,
        embed_dims=32,
        num_heads=4,
        num_transformer_layers=3,
        attention_type=attention_type,
    )


def layer_sequence(batch_first):
    from mmcv.cnn.bricks.transformer import TransformerLayerSequence

    layer = dict(
        type="BaseTransformerLayer",
        attn_cfgs=dict(
            type="MultiheadAttention", embed_dims=32, num_heads=4, batch_first=batch_first
        ),
        ffn_cfgs=dict(type="FFN", embed_dims=32, feedforward_channels=64),
        operation_order=("norm", "self_attn", "norm", "ffn"),
        batch_first=batch_first,
    )

    class Neck(nn.Module):
        """A neck that holds a transformer, as a detector might."""

        def __init__(self):
            super().__init__()
            self.layers = TransformerLayerSequence(layer, num_layers=3)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            x = self.layers(x, None, None)
            return x if batch_first else x.transpose(0, 1)

    return Neck()


def mmpretrain_vit(name="VisionTransformer", **kwargs):
    backbones = pytest.importorskip("mmpretrain.models.backbones", reason="no mmpretrain here")
    arch = dict(embed_dims=32, num_layers=3, num_heads=4, feedforward_channels=64)
    size = dict(arch=arch, img_size=32, patch_size=8)
    return getattr(backbones, name)(**{**size, **kwargs})


def mmpretrain_sam(**kwargs):
    backbones = pytest.importorskip("mmpretrain.models.backbones", reason="no mmpretrain here")
    arch = dict(
        embed_dims=32, num_layers=3, num_heads=4, feedforward_channels=64, global_attn_indexes=[1]
    )
    size = dict(arch=arch, img_size=64, patch_size=8, window_size=5, out_channels=16)
    return backbones.ViTSAM(**{**size, **kwargs})


def segment_anything_encoder():
    from segment_anything.modeling import ImageEncoderViT

    size = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4, out_chans=16)
    return ImageEncoderViT(**size, use_rel_pos=True, window_size=5, global_attn_indexes=(1,))


def vivit():
    return models.vivit(
        img_size=32,
        num_frames=4,
        tubelet_size=(2, 8, 8),
        embed_dim=32,
        spatial_depth=3,
        temporal_depth=1,
        num_heads=4,
    )


def vitdet(**kwargs):
    size = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4)
    windows = dict(window_size=5, window_block_indexes=(0, 2), pretrain_img_size=32)
    return models.vitdet(**{**size, **windows, **kwargs})


IMAGE, CLIP = (2, 3, 32, 32), (2, 3, 4, 32, 32)
HOSTS = {
    "timm class token": Host(timm_vit, IMAGE),
    "timm mean pooling": Host(lambda: timm_vit(global_pool="avg", class_token=False), IMAGE),
    "timm attention pooling": Host(lambda: timm_vit(global_pool="map"), IMAGE),
    "timm odd token count": Host(lambda: timm_vit(img_size=(24, 40)), (2, 3, 24, 40)),
    "timm distillation token": Host(timm_distilled, IMAGE),
    "timm DeiT-3": Host(lambda: timm_vit(no_embed_class=True, init_values=0.1), IMAGE),
    "timm DINOv2 registers": Host(lambda: timm_vit(reg_tokens=4, init_values=0.1), IMAGE),
    "timm query-key norm": Host(lambda: timm_vit(qk_norm=True, scale_attn_norm=True), IMAGE),
    "timm EVA": Host(lambda: timm_eva(init_values=0.1), IMAGE),
    "timm EVA-02": Host(
        lambda: timm_eva(
            use_rot_pos_emb=True, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, num_reg_tokens=1
        ),
        IMAGE,
    ),
    "timm features_only": Host(timm_features_only, (2, 3, 64, 64)),
    "mmaction2 VideoMAE": Host(lambda: videomae(init_values=0.1), CLIP),
    "mmaction2 VideoMAE map": Host(lambda: videomae(return_feat_map=True), CLIP),
    "mmaction2 TimeSformer divided": Host(
        lambda: timesformer("divided_space_time"), (2, 3, 2, 32, 32)
    ),
    "mmaction2 TimeSformer space": Host(lambda: timesformer("space_only"), (2, 3, 2, 32, 32)),
    "mmaction2 TimeSformer joint": Host(lambda: timesformer("joint_space_time"), (2, 3, 2, 32, 32)),
    "mmcv layers": Host(lambda: layer_sequence(True), (2, 16, 32)),
    "mmcv layers, tokens first": Host(lambda: layer_sequence(False), (2, 16, 32)),
    "mmpretrain class token": Host(mmpretrain_vit, IMAGE),
    "mmpretrain DeiT": Host(lambda: mmpretrain_vit("DistilledVisionTransformer"), IMAGE),
    "mmpretrain DeiT-3": Host(lambda: mmpretrain_vit("DeiT3", out_type="raw"), IMAGE),
    "mmpretrain SwiGLU": Host(
        lambda: mmpretrain_vit(layer_cfgs=dict(ffn_type="swiglu_fused"), pre_norm=True), IMAGE
    ),
    "mmpretrain CLIP's vision tower": Host(
        lambda: mmpretrain_vit(
            layer_cfgs=dict(act_cfg=dict(type="mmpretrain.QuickGELU")), pre_norm=True
        ),
        IMAGE,
    ),
    "mmpretrain maps": Host(
        lambda: mmpretrain_vit(out_type="featmap", out_indices=(0, 2), layer_scale_init_value=0.1),
        IMAGE,
    ),
    "mmpretrain EVA-02": Host(lambda: mmpretrain_vit("ViTEVA02", sub_ln=True), IMAGE),
    "mmpretrain EVA-02, another size": Host(
        lambda: mmpretrain_vit("ViTEVA02", out_type="featmap", out_indices=(0, 2)), (2, 3, 24, 48)
    ),
    "mmpretrain BEiT": Host(
        lambda: mmpretrain_vit("BEiTViT", use_rel_pos_bias=False, use_abs_pos_emb=True), IMAGE
    ),
    "mmpretrain ViTSAM": Host(mmpretrain_sam, (2, 3, 64, 64)),
    "mmpretrain ViTSAM maps": Host(
        lambda: mmpretrain_sam(out_channels=0, out_indices=(0, 2), use_rel_pos=False),
        (2, 3, 48, 64),
    ),
    "segment_anything": Host(segment_anything_encoder, (2, 3, 64, 64)),
    "mmvitaccel ViViT": Host(vivit, CLIP),
    "mmvitaccel ViTDet": Host(vitdet, (2, 3, 48, 64)),
    "mmvitaccel ViTDet, no positions": Host(
        lambda: vitdet(use_rel_pos=False, window_size=4), (2, 3, 48, 64)
    ),
}
for others in (hf_models.HOSTS, rfdetr_models.HOSTS):
    HOSTS.update({name: Host(*host) for name, host in others.items()})
if importlib.util.find_spec("timm") is None:
    HOSTS = {name: host for name, host in HOSTS.items() if not name.startswith("timm")}


def scramble(model: nn.Module) -> nn.Module:
    """Random weights everywhere: no part is a zero or an identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = (
                "gamma" in name
                or "lambda" in name
                or (parameter.ndim == 1 and name.endswith("weight"))
            )
            parameter.copy_(1 + 0.2 * noise if is_scale else 0.15 * noise)
    return model


def host_param(name: str):
    """A host as a parameter of a test, with the mark of the package that it may need."""
    package = name.partition(" ")[0].rstrip(",")
    optional = package in ("transformers", "rfdetr", "segment_anything")
    marks = [pytest.mark.extras("hosts", package)] if optional else []
    return pytest.param(name, marks=marks, id=name)


@pytest.fixture(params=[host_param(name) for name in HOSTS])
def host(request) -> tuple[nn.Module, torch.Tensor]:
    """A model in evaluation mode and a batch for it."""
    found = HOSTS[request.param]
    model = scramble(found.build())
    model.eval()  # mmpretrain's returns None
    return model, torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
