"""Necks and heads of detectors with random weights, and sequences of feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SIZES = [(13, 21), (7, 11), (4, 6), (2, 3)]
CHANNELS = (6, 8, 10)


def build(cfg: dict[str, Any]) -> nn.Module:
    """Build a module of mmdet in eval mode, with random weights and BatchNorm statistics.

    Args:
        cfg: Config of the module.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    module = MODELS.build(cfg).eval()
    for value in module.parameters():
        value.data = torch.randn(value.shape) * (0.1 if value.ndim > 1 else 0.3)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return module


def fpn(**changes: Any) -> nn.Module:
    """Build mmdet's FPN on three maps; ``changes`` update its config."""
    return build(
        {**dict(type="FPN", in_channels=list(CHANNELS), out_channels=8, num_outs=4), **changes}
    )


def efficientvit_fpn(**changes: Any) -> nn.Module:
    """Build the EfficientViTFPN on three maps; ``changes`` update its config."""
    kind = dict(type="mmvitaccel.EfficientViTFPN", num_outs=5, num_extra_trans_convs=1)
    return build({**kind, **dict(in_channels=CHANNELS, out_channels=8), **changes})


ANCHORS = dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0], strides=[4, 8, 16, 32])


def rpn(**changes: Any) -> nn.Module:
    """Build mmdet's RPN head; ``changes`` update its config."""
    kind = dict(type="RPNHead", in_channels=8, feat_channels=8, anchor_generator=ANCHORS)
    return build({**kind, **changes})


def retina(**changes: Any) -> nn.Module:
    """Build the head of RetinaNet; ``changes`` update its config."""
    kind = dict(type="RetinaHead", in_channels=8, feat_channels=8, num_classes=3, stacked_convs=2)
    return build({**kind, "anchor_generator": ANCHORS, **changes})


def fcos(**changes: Any) -> nn.Module:
    """Build the head of FCOS without norms; ``changes`` update its config."""
    kind = dict(type="FCOSHead", in_channels=8, feat_channels=8, num_classes=3, stacked_convs=2)
    return build({**kind, "strides": [4, 8, 16, 32], "norm_cfg": None, **changes})


def atss(**changes: Any) -> nn.Module:
    """Build the head of ATSS without norms; ``changes`` update its config."""
    kind = dict(type="ATSSHead", in_channels=8, feat_channels=8, num_classes=3, stacked_convs=2)
    anchors = {**ANCHORS, "ratios": [1.0]}
    return build({**kind, "anchor_generator": anchors, "norm_cfg": None, **changes})


def video(
    frames: int,
    channels: Sequence[int] = CHANNELS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    share: float = 0.04,
    seed: int = 1,
) -> Iterator[list[Tensor]]:
    """Yield the feature maps of consecutive frames, fine to coarse.

    Args:
        frames: Number of frames.
        channels: Channels of each map.
        sizes: (H, W) of each map.
        share: Share of a map's cells that change per frame; at least one changes.
        seed: Seed of the values.

    Yields:
        A list of maps (1, C, H, W).
    """
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(1, c, *s, generator=generator) for c, s in zip(channels, sizes)]
    for _ in range(frames):
        yield [x.clone() for x in maps]
        for x in maps:
            cells = x.shape[2] * x.shape[3]
            where = torch.randperm(cells, generator=generator)[: max(1, int(share * cells))]
            x.flatten(2)[..., where] = torch.randn(1, x.shape[1], len(where), generator=generator)


def assert_close(found: Any, expected: Any) -> None:
    """Assert that nested lists of maps are equal within 1e-5, relative or absolute."""
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        return
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert_close(one, other)
