"""Heads over maps against the plain heads on the same levels."""

from __future__ import annotations

import copy

import pytest
import torch

from mmvitaccel.adapters.eventful.head import attach_head
from mmvitaccel.adapters.eventful.neck import attach_neck
from mmvitaccel.adapters.hosts.parts import HEADS, NECKS
from mmvitaccel.adapters.parts import family_of
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.testing.maps import SIZES, assert_close, atss, fcos, fpn, retina, rpn, video

HEADS_OF = {
    "RPN": rpn,
    "RPN of two": lambda: rpn(num_convs=2),
    "RetinaNet": retina,
    "RetinaNet, BN": lambda: retina(norm_cfg=dict(type="BN")),
    "RetinaNet without a tower": lambda: retina(stacked_convs=0),
    "FCOS": fcos,
    "FCOS, tricks": lambda: fcos(norm_on_bbox=True, centerness_on_reg=True),
    "ATSS": atss,
}
FOUR = [8] * 4


def levels(frames, seed=1):
    return video(frames, channels=FOUR, sizes=SIZES, seed=seed)


def eventful(head, **options):
    """A copy of a head with the method on it, and its handle."""
    head = copy.deepcopy(head)
    adapter, reason = family_of(head, HEADS)
    assert reason == ""
    return head, attach_head(head, adapter, **options)


def behind_a_neck(neck, head, **options):
    """Both made eventful, the head following the neck."""
    neck = copy.deepcopy(neck)
    pyramid = attach_neck(neck, family_of(neck, NECKS)[0], lends=True, **options)
    return neck, pyramid, *eventful(head, **options)


@pytest.mark.parametrize("make", HEADS_OF.values(), ids=HEADS_OF)
def test_a_head_is_the_plain_one_on_the_same_levels(make):
    plain = make()
    head, handle = eventful(plain)
    before = None
    for maps in levels(5):
        outs = head(maps)
        assert_close(outs, plain(maps))
        if before is not None:
            same = (outs[0][0] == before).all(1).float().mean()
            assert 0.02 < same < 1, "pixels out of reach keep their bits"
        before = outs[0][0].clone()
    assert handle.frames[0].passed[0][0] < handle.frames[0].num_tokens


@pytest.mark.parametrize("make", HEADS_OF.values(), ids=HEADS_OF)
def test_a_head_follows_an_eventful_neck(make):
    plain_neck, plain = fpn(), make()
    neck, pyramid, head, handle = behind_a_neck(plain_neck, plain)
    for i, maps in enumerate(video(5)):
        with MacsCounter(head) as counter:
            outs = head(neck(maps))
        with MacsCounter(plain) as dense:
            expected = plain(plain_neck(maps))
        assert_close(outs, expected)
        if i:
            assert counter.report().total < dense.report().total
        assert handle.frames[0].first == (i == 0) and handle.frames[0].passed == []
    assert handle.memory_bytes < pyramid.memory_bytes * 6


def test_levels_that_are_lent_are_the_memory():
    neck, _, _, _ = behind_a_neck(fpn(), rpn())
    a, b = (list(neck(maps)) for maps in video(2))
    assert [x.data_ptr() for x in a] == [x.data_ptr() for x in b]


def test_a_head_that_missed_a_frame_starts_over():
    neck, _, head, _ = behind_a_neck(fpn(), retina())
    plain_neck, plain = fpn(), retina()
    for i, maps in enumerate(video(6)):
        given = neck(maps)
        if i not in (2, 3):
            assert_close(head(given), plain(plain_neck(maps)))


def test_a_head_may_be_given_levels_that_were_made_otherwise():
    neck, _, head, _ = behind_a_neck(fpn(), retina())
    plain_neck, plain = fpn(), retina()
    for i, maps in enumerate(video(8)):
        given = neck(maps)
        if i in (2, 3, 6):
            given = [x + 0 for x in given]  # no notes on these
        assert_close(head(given), plain(plain_neck(maps)))


def test_a_neck_that_starts_over_is_followed():
    neck, pyramid, head, _ = behind_a_neck(fpn(), rpn())
    plain_neck, plain = fpn(), rpn()
    for i, maps in enumerate(video(4)):
        if i == 2:
            pyramid.reset()
        assert_close(head(neck(maps)), plain(plain_neck(maps)))


def test_streams_batched_interleaved_and_in_lockstep():
    plain_neck, plain = fpn(), retina()
    neck, pyramid, head, handle = behind_a_neck(plain_neck, plain)
    videos = {name: list(video(6, seed=seed)) for seed, name in enumerate("abc")}

    def run(names, i, **frame):
        maps = [torch.cat(parts) for parts in zip(*(videos[name][i] for name in names))]
        with pyramid.stream(list(names) if len(names) > 1 else names, **frame):
            outs = head(neck(maps))
        assert_close(outs, plain(plain_neck(maps)))

    for i, names in enumerate(["ab", "ab", "c", "ba", "cb", "abc"]):
        run(names, i)
    assert handle.streams == pyramid.streams == ["a", "b", "c"]
    pair = [torch.cat(parts) for parts in zip(videos["a"][0], videos["b"][0])]
    for x in (pair, [x + (torch.arange(x.shape[3]) == 1) for x in pair]):
        with pyramid.stream("both"):
            assert_close(head(neck(x)), plain(plain_neck(x)))
    assert not handle.frames[0].first


def test_streams_are_evicted_and_return():
    plain_neck, plain = fpn(), rpn()
    neck, pyramid, head, handle = behind_a_neck(plain_neck, plain, max_streams=1)
    with pytest.warns(UserWarning, match="was evicted"):
        for i, maps in enumerate(video(6)):
            with pyramid.stream("ab"[i // 2 % 2]):
                assert_close(head(neck(maps)), plain(plain_neck(maps)))
    assert handle.streams == pyramid.streams == ["a"]


def test_a_frame_of_no_stream_is_whole():
    plain = rpn()
    head, handle = eventful(plain)
    for maps in levels(2):
        with handle.stream(None):
            assert_close(head(maps), plain(maps))
    assert handle.streams == []


def test_a_policy_of_its_own_says_what_passes():
    plain = rpn()
    head, handle = eventful(plain, policy=TopK(1))
    seen = None
    for maps in levels(4):
        if seen is None:
            seen = maps
        else:
            for old, new in zip(seen, maps):
                error = (old - new).norm(dim=1).flatten()
                old.flatten(2)[..., error.argmax()] = new.flatten(2)[..., error.argmax()]
        assert_close(head(maps), plain(seen))
        if handle.frames[0].first:
            seen = [x.clone() for x in maps]
    assert handle.frames[0].passed == [(4,)]


def test_a_broken_frame_a_change_of_weights_and_what_is_not_finite_start_over():
    plain = rpn()
    head, handle = eventful(plain)
    videos = levels(7)

    def clean(maps):
        expected = copy.deepcopy(plain)
        expected.load_state_dict(head.state_dict())
        assert_close(head(maps), expected(maps))
        return handle.frames[0].first

    assert clean(next(videos)) and not clean(next(videos))
    hook = head.rpn_cls.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        head(next(videos))
    hook.remove()
    assert clean(next(videos))
    with torch.no_grad():
        head.rpn_conv.weight.add_(0.1)
    assert clean(next(videos)) and not clean(next(videos))
    head([x * float("nan") for x in next(videos)])
    assert clean([torch.ones(1, 8, *size) for size in SIZES])


def test_training_is_dense_and_so_is_a_norm_in_training():
    plain = retina(norm_cfg=dict(type="BN")).train()
    head, handle = eventful(plain)
    (maps,) = levels(1)
    for model in (plain, head):
        sum(x.sum() for kind in model(maps) for x in kind).backward()
    for a, b in zip(head.parameters(), plain.parameters()):
        assert torch.equal(a.grad, b.grad)
    head.eval(), plain.eval()
    for model in (head, plain):
        model.cls_convs[0].bn.train()
    assert_close(head(maps), plain(maps))
    assert handle.streams == []


@pytest.mark.parametrize("make", [rpn, retina, fcos])
def test_half_precision_and_autocast(make):
    for half in (True, False):
        plain_neck, plain = fpn(), make()
        if half:
            plain_neck, plain = plain_neck.bfloat16(), plain.bfloat16()
        neck, _, head, handle = behind_a_neck(plain_neck, plain)
        with torch.autocast("cpu", torch.bfloat16, enabled=not half):
            for maps in video(3):
                maps = [x.bfloat16() if half else x for x in maps]
                found, expected = head(neck(maps)), plain(plain_neck(maps))
                for ours, theirs in zip(found, expected):
                    torch.testing.assert_close(list(ours), list(theirs), rtol=0.1, atol=0.1)
        assert handle.frames[0].computed < 1


def test_a_copy_follows_its_own_neck():
    neck, _, head, _ = behind_a_neck(fpn(), rpn())
    detector = torch.nn.ModuleDict(dict(neck=neck, head=head))
    frames = list(video(4))
    head(neck(frames[0]))
    copied = copy.deepcopy(detector)
    plain_neck, plain = fpn(), rpn()
    for maps in frames[1:]:
        assert_close(copied["head"](copied["neck"](maps)), plain(plain_neck(maps)))
        assert_close(head(neck(maps)), plain(plain_neck(maps)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: fcos(norm_cfg=dict(type="GN", num_groups=2)),
            "cls_convs.0.gn is a GroupNorm, which computes its statistics over the whole map "
            "(group_norm='held' keeps them between frames)",
        ),
        (
            lambda: retina(norm_cfg=dict(type="BN", track_running_stats=False)),
            "cls_convs.0.bn is a BatchNorm without running statistics",
        ),
        (lambda: fcos(dcn_on_last_conv=True), "cls_convs.1 is a"),
        (lambda: atss(pred_kernel_size=1), "atss_cls has kernel_size=(1, 1)"),
    ],
    ids=["GN", "batch statistics", "deformable", "1 x 1"],
)
def test_heads_that_look_beyond_a_pixel_are_refused_by_name(make, reason):
    adapter, said = family_of(make(), HEADS)
    assert adapter is None and reason in said


def test_hooks_that_would_be_dropped_are_refused():
    head, _ = eventful(rpn())
    (maps,) = levels(1)
    head.rpn_conv.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="EventfulHead: 'rpn_conv': it has a forward hook"):
        head(maps)


@pytest.mark.parametrize("make", [retina, fcos, lambda: rpn(num_convs=2)])
def test_maps_between_convolutions_kept_in_half(make):
    """Less memory; results of the plain head to half precision, those out of reach bit by bit."""
    plain = make()
    whole, half = eventful(plain), eventful(plain, buffer_dtype=torch.bfloat16)
    before = None
    for maps in levels(4):
        outs, expected = half[0](maps), plain(maps)
        whole[0](maps)
        for ours, theirs in zip(outs, expected):
            for a, b in zip(ours, theirs):
                assert a.dtype == torch.float32
                torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
        if before is not None:
            assert 0.02 < (outs[0][0] == before).all(1).float().mean() < 1
        before = outs[0][0].clone()
    assert not torch.equal(outs[0][0], whole[0](maps)[0][0]), "nothing was rounded"
    state = half[1].memory_bytes, whole[1].memory_bytes
    assert state[0] < 0.9 * state[1]
    assert copy.deepcopy(half[0])(maps)[0][0].shape == outs[0][0].shape
