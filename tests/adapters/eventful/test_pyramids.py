"""EventfulNeck on necks that read several maps."""

from __future__ import annotations

import copy

import pytest
import torch

from mmvitaccel import Threshold, TopK, apply_eventful_neck
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.testing.maps import CHANNELS, assert_close, efficientvit_fpn, fpn, video

NECKS = {
    "FPN": lambda: fpn(),
    "FPN on input": lambda: fpn(add_extra_convs="on_input", num_outs=5),
    "FPN on output": lambda: fpn(
        add_extra_convs="on_output", relu_before_extra_convs=True, num_outs=5, start_level=1
    ),
    "FPN on lateral, BN": lambda: fpn(
        add_extra_convs="on_lateral", norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU")
    ),
    "FPN up to a level": lambda: fpn(end_level=1, num_outs=2),
    "EfficientViTFPN": efficientvit_fpn,
    "EfficientViTFPN of one": lambda: efficientvit_fpn(in_channels=CHANNELS[:1], num_outs=3),
}


@pytest.mark.parametrize("make", NECKS.values(), ids=NECKS)
def test_levels_are_those_of_the_plain_neck(make):
    plain = make()
    neck = copy.deepcopy(plain)
    handle = apply_eventful_neck(neck)
    count = len(plain.in_channels)
    before = None
    for maps in video(4, channels=CHANNELS[:count]):
        levels = neck(maps)
        assert_close(levels, plain(maps))
        if before is not None:
            kept = [torch.equal(a, b) for a, b in zip(levels, before)]
            same = [(a == b).all(1).float().mean() for a, b in zip(levels, before)]
            assert not any(kept) and same[0] > 0.1, "what changed, and pixels that did not"
        before = levels
    assert handle.frames[0].passed[0][0] < handle.frames[0].num_tokens


def test_a_repeated_frame_costs_nothing():
    neck = fpn()
    apply_eventful_neck(neck)
    (maps,) = video(1)
    neck(maps)
    with MacsCounter(neck) as counter:
        neck(maps)
    assert counter.report().total == 0


def test_one_threshold_serves_maps_of_any_scale():
    neck = fpn()
    handle = apply_eventful_neck(neck, Threshold(0.1))
    (maps,) = video(1)
    maps = [x * scale for x, scale in zip(maps, (1, 10, 100))]
    neck(maps)
    noisy = [x + 0.03 * x.std() * torch.randn(x.shape) for x in maps]
    neck(noisy)
    assert handle.frames[0].passed == [(0,)]
    noisy[1][..., 3, 3] += 0.2 * maps[1].norm(dim=1).mean()
    neck(noisy)
    assert handle.frames[0].passed == [(1,)]
    assert handle.passed_tokens()[0].nonzero().tolist() == [[0, 0, 0, 13 * 21 + 3 * 11 + 3]]


def test_streams_batched_are_as_alone():
    neck = efficientvit_fpn()
    alone = [copy.deepcopy(neck) for _ in range(2)]
    for one in alone:
        apply_eventful_neck(one, TopK(3))
    handle = apply_eventful_neck(neck, TopK(3))
    for i, (a, b) in enumerate(zip(video(4, seed=1), video(4, seed=2))):
        with handle.stream(["a", "b"], [i, i]):
            levels = neck([torch.cat(pair) for pair in zip(a, b)])
        for entry, (one, maps) in enumerate(zip(alone, (a, b))):
            assert_close([level[entry : entry + 1] for level in levels], one(maps))


@pytest.mark.parametrize(
    ("cfg", "reason"),
    [
        (dict(norm_cfg=dict(type="GN", num_groups=2)), r"lateral_convs\.0\.gn is a GroupNorm"),
        (
            dict(norm_cfg=dict(type="BN", track_running_stats=False)),
            r"lateral_convs\.0\.bn is a BatchNorm without running statistics",
        ),
        (dict(upsample_cfg=dict(mode="bilinear")), r"upsample_cfg=\{'mode': 'bilinear'\} mixes"),
        (dict(conv_cfg=dict(type="ConvWS")), r"lateral_convs\.0 is a mmcv.*ConvWS2d, not a plain"),
    ],
    ids=str,
)
def test_necks_that_look_beyond_a_pixel_are_refused(cfg, reason):
    with pytest.raises(ValueError, match=reason):
        apply_eventful_neck(fpn(**cfg))


def test_maps_that_do_not_fit_are_named():
    neck = efficientvit_fpn()
    apply_eventful_neck(neck)
    (maps,) = video(1)
    with pytest.raises(ValueError, match=r"the inputs have \(6, 8\) channels"):
        neck(maps[:2])
