"""RF-DETR's windowed DINOv2, small, with random weights from a config."""

from __future__ import annotations

import torch
from torch import nn


def backbone(attention: str = "sdpa", **options) -> nn.Module:
    """Three blocks, the second one over all windows, and maps of the first and the last."""
    from rfdetr.models.backbone import dinov2_with_windowed_attn as rfdetr

    size = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, mlp_ratio=2)
    image = dict(image_size=64, patch_size=8, num_register_tokens=1)
    windows = dict(num_windows=2, window_block_indexes=[0, 2], out_features=["stage1", "stage3"])
    config = rfdetr.WindowedDinov2WithRegistersConfig(
        **{**size, **image, **windows, **options}, attn_implementation=attention
    )
    torch.manual_seed(0)
    return rfdetr.WindowedDinov2WithRegistersBackbone(config)


MAP = (2, 3, 64, 64)
HOSTS = {
    "rfdetr": (backbone, MAP),
    "rfdetr, eager": (lambda: backbone("eager", num_register_tokens=0), (2, 3, 32, 64)),
    "rfdetr, one window": (lambda: backbone(num_windows=1, use_swiglu_ffn=True), MAP),
}
