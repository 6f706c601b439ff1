"""Small vision transformers of Hugging Face's transformers, with random weights from configs."""

from __future__ import annotations

import torch
from torch import nn

SIZE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, patch_size=8)
IMAGE = {**SIZE, "image_size": 32}


def build(name: str, attention: str, config: str | None = None, **options) -> nn.Module:
    """A model by the name of its class, with its own config's class or another."""
    import transformers

    cls = getattr(transformers, name, None)
    if cls is None:  # not public
        from transformers.models.sam import modeling_sam
        from transformers.models.sam_hq import modeling_sam_hq

        cls = getattr(modeling_sam, name, None) or getattr(modeling_sam_hq, name)
    options = getattr(transformers, config)(**{**IMAGE, **options})
    torch.manual_seed(0)
    return cls._from_config(options, attn_implementation=attention)


def vit(attention="sdpa", name="ViTModel", **options):
    return build(name, attention, "ViTConfig", intermediate_size=64, **options)


def deit(attention="sdpa"):
    return build("DeiTModel", attention, "DeiTConfig", intermediate_size=64)


def dinov2(attention="sdpa", name="Dinov2Model", config="Dinov2Config", **options):
    return build(name, attention, config, mlp_ratio=2, **options)


def dinov2_registers(attention="sdpa"):
    name = "Dinov2WithRegisters"
    return dinov2(attention, f"{name}Model", f"{name}Config", num_register_tokens=3)


def dinov2_maps():
    return dinov2(name="Dinov2Backbone", out_features=["stage1", "stage3"])


def dinov3(attention="sdpa", **options):
    size = dict(intermediate_size=64, num_register_tokens=2)
    return build("DINOv3ViTModel", attention, "DINOv3ViTConfig", **{**size, **options})


def clip(attention="sdpa"):
    return build("CLIPVisionModel", attention, "CLIPVisionConfig", intermediate_size=64)


def siglip(attention="sdpa"):
    return build("SiglipVisionModel", attention, "SiglipVisionConfig", intermediate_size=64)


class WithNoise(nn.Module):
    """ViTMAE with the same random mask in every call."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x):
        noise = torch.rand(len(x), 16, generator=torch.Generator().manual_seed(0)).to(x)
        return self.model(x, noise=noise).last_hidden_state


def vit_mae(attention="sdpa"):
    options = dict(intermediate_size=64, mask_ratio=0.25)
    return WithNoise(build("ViTMAEModel", attention, "ViTMAEConfig", **options))


def videomae(attention="sdpa", **options):
    size = dict(intermediate_size=64, num_frames=4, tubelet_size=2, use_mean_pooling=False)
    return build("VideoMAEModel", attention, "VideoMAEConfig", **{**size, **options})


def vitdet(**options):
    windows = dict(image_size=64, window_size=5, window_block_indices=[0, 2], mlp_ratio=2)
    windows.update(use_relative_position_embeddings=True, residual_block_indices=[1])
    return build("VitDetModel", "eager", "VitDetConfig", **{**windows, **options})


def sam(attention="sdpa", name="Sam", **options):
    windows = dict(image_size=64, window_size=5, global_attn_indexes=[1], mlp_dim=64)
    options = {**windows, "output_channels": 16, **options}
    return build(f"{name}VisionEncoder", attention, f"{name}VisionConfig", **options)


SQUARE, MAP = (2, 3, 32, 32), (2, 3, 64, 64)
HOSTS = {
    "transformers ViT": (vit, SQUARE),
    "transformers ViT, eager": (lambda: vit("eager"), SQUARE),
    "transformers DeiT": (deit, SQUARE),
    "transformers DINOv2": (dinov2, SQUARE),
    "transformers DINOv2 SwiGLU": (lambda: dinov2("eager", use_swiglu_ffn=True), SQUARE),
    "transformers DINOv2 maps": (dinov2_maps, SQUARE),
    "transformers DINOv2 registers": (dinov2_registers, SQUARE),
    "transformers DINOv3": (dinov3, SQUARE),
    "transformers DINOv3, eager": (lambda: dinov3("eager", use_gated_mlp=True), SQUARE),
    "transformers CLIP": (clip, SQUARE),
    "transformers CLIP, eager": (lambda: clip("eager"), SQUARE),
    "transformers SigLIP": (siglip, SQUARE),
    "transformers ViTMAE": (vit_mae, SQUARE),
    "transformers VideoMAE": (videomae, (2, 4, 3, 32, 32)),
    "transformers VideoMAE, eager": (lambda: videomae("eager"), (2, 4, 3, 32, 32)),
    "transformers VitDet": (vitdet, MAP),
    "transformers VitDet, no positions": (
        lambda: vitdet(use_relative_position_embeddings=False, window_size=4),
        MAP,
    ),
    "transformers SAM": (sam, MAP),
    "transformers SAM, eager": (lambda: sam("eager"), MAP),
    "transformers SAM-HQ": (lambda: sam(name="SamHQ"), MAP),
}
