"""EventfulNeck in plain torch: streams, modes, and what a user does with the handle."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmvitaccel import SimpleFPN, Threshold, TopK, apply_eventful_neck
from mmvitaccel.adapters.eventful.neck import EventfulNeckHandle
from mmvitaccel.core.macs.counter import count_macs

SIZE = (5, 7)


def make_neck(**config):
    torch.manual_seed(0)
    neck = SimpleFPN(**{**dict(in_channels=16, out_channels=8), **config})
    for parameter in neck.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3
    return neck.eval()


def make_video(frames, seed=1, size=SIZE, cells=4):
    """Maps of which some cells, the corner's among them, change from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    video = [torch.randn(1, 16, *size, generator=generator)]
    for _ in range(frames - 1):
        x = video[-1].clone()
        where = 1 + torch.randperm(size[0] * size[1] - 1, generator=generator)[:cells]
        where[0] = 0
        x.flatten(2)[..., where] = torch.randn(1, 16, cells, generator=generator)
        video.append(x)
    return video


def assert_levels(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def alone(video, policy=None):
    """Levels of a neck that has never seen anything else."""
    neck = make_neck()
    apply_eventful_neck(neck, policy)
    return [neck(x) for x in video]


def firsts(handle):
    return [frame.first for frame in handle.frames]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(5, 7), (4, 4), (9, 2)], ids=str)
def test_levels_are_those_of_the_plain_neck(size, layout):
    plain, neck = make_neck(), make_neck()
    handle = apply_eventful_neck(neck)
    for i, x in enumerate(make_video(6, size=size)):
        levels = neck((x.contiguous(memory_format=layout),))
        assert_levels(levels, plain(x))
        assert [a.stride() for a in levels] == [b.stride() for b in plain(x)]
        assert handle.frames[0].passed == [(size[0] * size[1] if i == 0 else 4,)]


def test_levels_that_were_given_out_stay_as_they_are_and_may_be_changed():
    neck, plain = make_neck(), make_neck()
    apply_eventful_neck(neck)
    video = make_video(4)
    given = [neck(x) for x in video]
    for levels, x in zip(given, video):
        assert_levels(levels, plain(x))
        for level in levels:
            level.zero_()
    assert_levels(neck(video[-1]), plain(video[-1]))


def test_a_policy_says_what_passes_and_may_change():
    neck = make_neck()
    handle = apply_eventful_neck(neck, TopK(3))
    counts = []
    for k, x in zip((3, 3, 2, 35), make_video(4, cells=20)):
        handle.policy.k = k
        levels = neck(x)
        counts.append(handle.frames[0].passed[0][0])
    assert counts == [35, 3, 2, 35]
    assert_levels(levels, make_neck()(x))
    (mask,) = handle.passed_tokens()
    assert mask.shape == (1, 1, 1, 35) and mask.all()
    handle.policy = Threshold(1e9)
    neck(x + 1)
    assert handle.frames[0].passed == [(0,)]


def test_streams_interleaved_and_batched_are_as_alone():
    videos = {name: make_video(5, seed=i) for i, name in enumerate("ab")}
    expected = {name: alone(video, TopK(2)) for name, video in videos.items()}
    interleaved, batched = make_neck(), make_neck()
    one, many = (apply_eventful_neck(neck, TopK(2)) for neck in (interleaved, batched))
    for i in range(5):
        for name in "ab":
            with one.stream(name, i):
                for ours, level in zip(interleaved(videos[name][i]), expected[name][i]):
                    assert torch.equal(ours, level)
        with many.stream(["a", "b"], [i, i]):
            levels = batched(torch.cat([videos["a"][i], videos["b"][i]]))
        for entry, name in enumerate("ab"):
            assert_levels([level[entry : entry + 1] for level in levels], expected[name][i])
    assert one.streams == many.streams == ["a", "b"]


def test_a_batch_in_lockstep_is_one_stream():
    neck, plain = make_neck(), make_neck()
    handle = apply_eventful_neck(neck)
    for pair in zip(make_video(3, seed=1), make_video(3, seed=2, cells=1)):
        with handle.stream("both"):
            assert_levels(neck(torch.cat(pair)), plain(torch.cat(pair)))
    assert handle.frames[0].passed == [(5,)]


def test_what_starts_a_stream_clean():
    neck, x = make_neck(), make_video(1)[0]
    handle = apply_eventful_neck(neck)

    def clean(x=x, **frame):
        with handle.stream("a", **frame):
            neck(x)
        return firsts(handle) == [True]

    assert clean(frame_id=0) and not clean(frame_id=1)
    assert clean(frame_id=1), "repeated frame id"
    assert clean(frame_id=2, cut=True)
    assert clean(x[..., :3], frame_id=3), "size"
    neck.double()
    assert clean(x.double(), frame_id=4), "dtype"
    neck.float()
    assert clean(frame_id=5) and not clean(frame_id=6)
    with torch.no_grad():
        neck.simfp_4[0].weight.add_(1)
    assert clean(frame_id=7), "weights"
    neck.train().eval()
    assert clean(frame_id=8), "mode"
    with torch.inference_mode():
        assert clean(frame_id=9)
    assert clean(frame_id=10)
    clean(x * float("nan"), frame_id=11)
    assert clean(frame_id=12), "a frame that is not finite"
    handle.reset("a")
    assert clean(frame_id=13)
    with handle.stream(None):
        assert_levels(neck(x), make_neck_like(neck)(x))
    assert firsts(handle) == [True] and handle.frames[0].passed == []


def make_neck_like(neck):
    plain = make_neck()
    plain.load_state_dict(neck.state_dict())
    return plain


def test_a_frame_that_is_broken_off_starts_the_next_one_clean():
    neck, (x, y, z) = make_neck(), make_video(3)
    handle = apply_eventful_neck(neck)
    neck(x)

    def fail(*_):
        raise RuntimeError("broken off")

    hook = neck.simfp_4[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken off"):
        neck(y)
    hook.remove()
    assert_levels(neck(z), make_neck()(z))
    assert firsts(handle) == [True]


def test_training_is_plain_and_evaluation_gives_no_gradients():
    neck, plain = make_neck().train(), make_neck().train()
    apply_eventful_neck(neck)
    x = make_video(1)[0].requires_grad_()
    for model in (neck, plain):
        sum(level.sum() for level in model(x)).backward()
    for a, b in zip(neck.parameters(), plain.parameters()):
        assert torch.equal(a.grad, b.grad)
    assert not any(level.requires_grad for level in neck.eval()(x))


def test_removing_restores_and_a_second_time_replaces():
    neck, bare = make_neck(), make_neck()
    before = {name: id(p) for name, p in neck.named_parameters()}
    handle = apply_eventful_neck(neck)
    assert isinstance(neck, SimpleFPN) and neck.state_dict().keys() == bare.state_dict().keys()
    with pytest.warns(UserWarning, match=r"Threshold\(threshold=0.0\) and is replaced by TopK"):
        second = apply_eventful_neck(neck, TopK(2))
    assert not handle.attached and second.attached
    neck(make_video(1)[0])
    assert second.memory_bytes > 0 and EventfulNeckHandle(neck).streams == ["unnamed"]
    second.remove()
    second.remove()
    assert {name: id(p) for name, p in neck.named_parameters()} == before
    assert [type(m) for m in neck.modules()] == [type(m) for m in bare.modules()]
    assert second.memory_bytes == 0
    with pytest.raises(
        ValueError, match=r"EventfulNeck is not attached to this SimpleFPN; use apply_ev"
    ):
        EventfulNeckHandle(neck)


def test_a_copy_has_streams_of_its_own():
    neck, (x, y) = make_neck(), make_video(2)
    apply_eventful_neck(neck)
    neck(x)
    copied = copy.deepcopy(neck)
    handle = EventfulNeckHandle(copied)
    assert_levels(copied(y), make_neck()(y))
    assert firsts(handle) == [True] and EventfulNeckHandle(neck).frames[0].passed == [(35,)]


def test_multiply_adds_follow_the_cells():
    neck = make_neck(in_channels=16, scale_factors=(2.0,), num_outs=1)
    x = make_video(1)[0]
    dense = count_macs(neck, x)
    apply_eventful_neck(neck)
    assert count_macs(neck, x).total == dense.total == 35 * (16 * 8 * 4 + 4 * (8 * 8 + 9 * 8 * 8))
    y = x.clone()
    y[..., 2, 3] += 1
    report = count_macs(neck, y)
    assert report.total == 16 * 8 * 4 + 4 * 8 * 8 + 16 * 9 * 8 * 8
    assert report.by_module["simfp_3.0"] == 16 * 8 * 4 and not report.uncounted


def test_half_precision_and_autocast():
    for neck, video, how in (
        (make_neck().bfloat16(), [x.bfloat16() for x in make_video(3)], dict(enabled=False)),
        (make_neck(), make_video(3), dict(dtype=torch.bfloat16)),
    ):
        plain = copy.deepcopy(neck)
        apply_eventful_neck(neck)
        with torch.autocast("cpu", **how):
            for x in video:
                for ours, level in zip(neck(x), plain(x)):
                    assert ours.dtype == level.dtype
                    torch.testing.assert_close(ours, level, rtol=0.05, atol=0.05)


class Resized(SimpleFPN):
    def forward(self, inputs):
        return super().forward(inputs)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = make_neck(), make_neck()


def test_bad_input_is_named():
    neck, x = make_neck(), make_video(1)[0]
    with pytest.raises(ValueError, match=r"Conv2d holds no supported neck; supported are: mmvit"):
        apply_eventful_neck(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="Pair holds 2 supported necks: give one"):
        apply_eventful_neck(Pair())
    with pytest.raises(ValueError, match="Resized overrides the forward of SimpleFPN"):
        apply_eventful_neck(Resized(16, 8))
    with pytest.raises(TypeError, match="policy=3 has no method select"):
        apply_eventful_neck(neck, 3)
    with pytest.raises(ValueError, match="max_streams=0 must be a whole number, at least 1"):
        apply_eventful_neck(neck, max_streams=0)
    apply_eventful_neck(neck)
    with pytest.raises(ValueError, match="a batch of 2 frames came without stream ids"):
        neck(torch.cat([x, x]))
