"""Refreshed frames of models: equal to the dense ones, on the memory that is there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmvitaccel import (
    Every,
    OnChange,
    SimpleFPN,
    TopK,
    apply_eventful,
    apply_eventful_neck,
)
from mmvitaccel.testing.models import timm_model, vitdet

SMALL = dict(
    img_size=128, embed_dim=32, depth=3, num_heads=2, window_size=4, window_block_indexes=(0, 2)
)


def vitdet_small():
    torch.manual_seed(0)
    return vitdet(**SMALL).eval()


def timm_small():
    torch.manual_seed(0)
    return timm_model("vit_tiny_patch16_224", img_size=128, depth=3, num_classes=0).eval()


def scenes(*lengths, seed=3):
    """Scenes of so many frames, each frame a little different from the one before."""
    torch.manual_seed(seed)
    video = []
    for length in lengths:
        # coarse, as scenes are: differences between them do not average out over a strip
        x = nn.functional.interpolate(torch.randn(1, 3, 4, 4), (128, 128))
        for _ in range(length):
            video.append(x)
            x = x + 0.05 * torch.randn_like(x)
    return video


def features(model, x):
    with torch.no_grad():
        out = model(x)
    return out[0] if isinstance(out, tuple) else out


def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


OPTIONS = [
    dict(attention="exact"), dict(attention="tokenwise"), dict(attention="delta"),
    dict(attention="exact", gate_position="before_norm"), dict(attention="delta", kv_pool_size=2),
    dict(attention="exact", reference="last_frame"),
]  # fmt: skip


@pytest.mark.parametrize("make", [vitdet_small, timm_small])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_frame_of_a_cut_equals_a_first_one(make, options):
    if make is timm_small and "kv_pool_size" in options:
        pytest.skip("needs the grid of the tokens, which timm does not tell")
    model, whole = make(), make()
    handle = apply_eventful(model, TopK(6), refresh=OnChange(), **options)
    apply_eventful(whole, TopK(6), **options)
    video = scenes(5, 4, 3)
    found = []
    for number, x in enumerate(video):
        out = features(model, x)
        (info,) = handle.frames
        if info.refreshed:
            found.append(number)
            fresh = copy.deepcopy(whole)  # a copy starts without streams
            assert largest(out, features(fresh, x)) < 1e-5
            assert info.left_out == 0 and set(info.passed) == {(64 + (make is timm_small),) * 3}
            after = features(model, video[number + 1])
            assert largest(after, features(fresh, video[number + 1])) < 1e-4
            # it was computed out of turn, and is no change
            handle.reset()
            features(model, x)
    assert found == [5, 9]


@pytest.mark.parametrize("attention", ["exact", "delta"])
def test_sums_are_rebuilt_and_not_added_to(attention):
    """After many frames of large changes the sums are far off; a refresh takes nothing along."""
    model, dense = vitdet_small(), vitdet_small()
    handle = apply_eventful(model, TopK(6), attention)
    for x in scenes(*[2] * 12):
        features(model, x)
    x = scenes(1, seed=9)[0]
    off = largest(features(model, x), features(dense, x))
    handle.refresh()
    assert largest(features(model, x), features(dense, x)) < 1e-5 < off
    assert handle.frames[0].refreshed and not handle.frames[0].first
    features(model, x)
    assert not handle.frames[0].refreshed


@pytest.mark.parametrize("attention", ["exact", "delta"])
def test_memory_is_used_again(attention):
    model = vitdet_small()
    handle = apply_eventful(model, TopK(6), attention, refresh=Every(2))
    places, sizes = set(), {True: set(), False: set()}
    for number, x in enumerate(scenes(7)):
        features(model, x)
        (info,) = handle.frames
        assert info.refreshed == (number in (2, 4, 6))
        state = handle.remembered("unnamed")[1].attention.memory
        sums = state.numerator if attention == "exact" else state.product
        places.add(sums.data_ptr())
        if number:
            sizes[info.refreshed].add(handle.memory_bytes)
    assert len(places) == 1
    assert [len(found) for found in sizes.values()] == [1, 1]


def test_streams_of_a_batch_decide_by_themselves():
    model = timm_small()
    handle = apply_eventful(model, TopK(6), refresh=OnChange())
    still, cut = scenes(4), scenes(2, 2, seed=8)
    found = []
    for a, b in zip(still, cut):
        with handle.stream(["still", "cut"]):
            both = features(model, torch.cat((a, b)))
        found.append([frame.refreshed for frame in handle.frames])
    assert found == [[False, False]] * 2 + [[False, True], [False, False]]
    handle.refresh("still")
    handle.refresh("nobody")
    with handle.stream(["still", "cut"]):
        both = features(model, torch.cat((still[-1], cut[-1])))
    assert [frame.refreshed for frame in handle.frames] == [True, False]
    assert largest(both[:1], features(timm_small(), still[-1])) < 1e-5


def test_a_copied_model_refreshes_as_its_original_does():
    model = vitdet_small()
    apply_eventful(model, TopK(6), refresh=Every(1))
    copied = copy.deepcopy(model)
    for x in scenes(3):
        out = features(copied, x)
        assert largest(out, features(vitdet_small(), x)) < 1e-5


class Detector(nn.Module):
    """A backbone and its neck."""

    def __init__(self):
        super().__init__()
        self.backbone, self.neck = vitdet_small(), SimpleFPN(32, 8).eval()

    def forward(self, x):
        return self.neck(self.backbone(x))


@pytest.mark.parametrize("frame_ids", [True, False])
def test_the_neck_is_told_within_the_frame(frame_ids):
    model, plain = Detector(), Detector()
    plain.load_state_dict(model.state_dict())
    handle = apply_eventful(model.backbone, TopK(32), refresh=OnChange())
    neck = apply_eventful_neck(model.neck, TopK(5))
    found = []
    with torch.no_grad(), handle.stream("all of them"):
        for number, x in enumerate(scenes(3, 3, 2)):
            if frame_ids:  # a name for each frame, or one for all
                with handle.stream("camera", frame_id=number):
                    levels = model(x)
            else:
                levels = model(x)
            assert handle.frames[0].refreshed == neck.frames[0].refreshed
            if neck.frames[0].refreshed:
                found.append(number)
                for ours, theirs in zip(levels, plain(x)):
                    assert largest(ours, theirs) < 1e-5
    assert found == [3, 6]


def test_a_neck_alone_takes_requests():
    torch.manual_seed(0)
    neck, plain = SimpleFPN(32, 8).eval(), SimpleFPN(32, 8).eval()
    plain.load_state_dict(neck.state_dict())
    handle = apply_eventful_neck(neck, TopK(5))
    with torch.no_grad():
        for number, x in enumerate(torch.randn(4, 1, 32, 8, 8)):
            if number == 2:
                handle.refresh()
            levels = neck(x)
            assert handle.frames[0].refreshed == (number == 2)
            off = max(largest(ours, theirs) for ours, theirs in zip(levels, plain(x)))
            assert (off < 1e-5) == (number in (0, 2))


def test_what_is_no_refresh_is_refused():
    with pytest.raises(TypeError, match=r"refresh='always' has no method due; give OnChange"):
        apply_eventful(vitdet_small(), TopK(6), refresh="always")
