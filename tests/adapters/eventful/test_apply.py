"""Streams, hosts, and what a user does with the handle."""

from __future__ import annotations

import copy
import importlib.util
import warnings

import pytest
import torch
from torch import nn

from mmvitaccel import Always, Threshold, TopFraction, TopK, apply_eventful, apply_tome
from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.models.vitdet.backbone import ViTDet
from tests.adapters import hf_models, rfdetr_models
from tests.adapters.conftest import host_param

CONFIG = dict(
    img_size=64, patch_size=8, embed_dim=48, depth=3, num_heads=3, window_size=3,
    window_block_indexes=(0, 2), pretrain_img_size=32,
)  # fmt: skip
TOKENS = 35


def make_model(seed=0):
    model = ViTDet(**CONFIG)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def make_video(frames, seed=1, size=(40, 56)):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 3, *size, generator=generator)
    video = [x]
    for _ in range(frames - 1):
        moving = torch.rand(1, 1, *size, generator=generator) < 0.25
        video.append(video[-1] + 0.3 * moving * torch.randn(x.shape, generator=generator))
    return video


def run(model, video):
    with torch.no_grad():
        return [model(frame)[0] for frame in video]


def fresh(video, attention="exact", policy=None, **options):
    """Outputs of a model that has never seen anything else."""
    model = make_model()
    apply_eventful(model, policy or TopK(6), attention, **options)
    return run(model, video)


def is_first(handle):
    return [frame.first for frame in handle.frames]


# Streams.


@pytest.mark.parametrize("attention", ["tokenwise", "delta", "exact"])
def test_interleaved_and_batched_streams_equal_each_alone_bit_for_bit(attention):
    videos = {name: make_video(6, seed) for seed, name in enumerate("abc")}
    alone = {name: fresh(video, attention) for name, video in videos.items()}
    model = make_model()
    handle = apply_eventful(model, TopK(6), attention)
    for i in range(6):
        for name, video in videos.items():
            with handle.stream(name, i):
                assert torch.equal(run(model, [video[i]])[0], alone[name][i])
    handle.reset()
    # Batched, and joining late: c is in the batch from its second frame on.
    with handle.stream("c", 0):
        run(model, [videos["c"][0]])
    for i in range(5):
        with handle.stream(["a", "c", "b"], [i, i + 1, i]):
            batch = torch.cat([videos["a"][i], videos["c"][i + 1], videos["b"][i]])
            (out,) = run(model, [batch])
        for row, (name, frame) in enumerate([("a", i), ("c", i + 1), ("b", i)]):
            torch.testing.assert_close(out[row : row + 1], alone[name][frame], rtol=0, atol=1e-5)
        assert is_first(handle) == [i == 0, False, i == 0]


@pytest.mark.parametrize("policy", [TopK(6), Threshold(0.3), TopFraction(0.2)], ids=repr)
@pytest.mark.parametrize("attention", ["tokenwise", "delta", "exact"])
def test_lockstep_equals_each_alone_also_when_ragged(attention, policy):
    videos = [make_video(6, seed) for seed in range(3)]
    for frame in videos[2]:
        frame.copy_(videos[2][0])  # nothing moves here, so nothing passes a threshold
    alone = [fresh(video, attention, policy) for video in videos]
    model = make_model()
    handle = apply_eventful(model, policy, attention)
    counts = []
    for i in range(6):
        with handle.stream("together"):
            (out,) = run(model, [torch.cat([video[i] for video in videos])])
        expected = torch.cat([outs[i] for outs in alone])
        torch.testing.assert_close(out, expected, rtol=0, atol=2e-5)
        counts.append(handle.frames[0].passed[0][0])
    if isinstance(policy, Threshold):
        assert 0 < counts[-1] < 3 * TOKENS and len(set(counts[1:])) > 1
    else:
        assert counts[1:] == [counts[1]] * 5


def test_what_starts_clean_by_itself():
    model, video = make_model(), make_video(4)
    handle = apply_eventful(model, TopK(6))
    dense = run(make_model(), video)

    def frame(i, **how):
        with handle.stream("a", **how):
            (out,) = run(model, [video[i]])
        return is_first(handle)[0], torch.allclose(out, dense[i], atol=1e-5)

    assert frame(0, frame_id=0) == (True, True)
    assert frame(1, frame_id=1) == (False, False)
    assert frame(2, frame_id=1) == (True, True), "repeated"
    assert frame(3, frame_id=7) == (False, False)
    assert frame(1, frame_id=3) == (True, True), "lower"
    assert frame(2, frame_id=4, cut=True) == (True, True), "scene cut"
    assert frame(3, frame_id=5) == (False, False)
    handle.reset("a")
    assert frame(1, frame_id=6) == (True, True), "reset"
    assert frame(2, frame_id=8) == (False, False)
    handle.reset()
    assert frame(3, frame_id=9) == (True, True) and handle.streams == ["a"]


def test_another_size_shape_dtype_or_autocast_starts_clean():
    model = make_model()
    handle = apply_eventful(model, TopK(6))
    sizes = [(40, 56), (56, 40), (40, 56), (24, 24), (40, 51)]  # 5 x 7 tokens at first and last
    for size in sizes:
        for expected in (True, False):
            run(model, make_video(1, size=size))
            assert is_first(handle) == [expected], size
    frame = make_video(1)[0]
    run(model, [frame])
    with torch.autocast("cpu", torch.bfloat16):
        run(model, [frame])
        assert is_first(handle) == [True]
        run(model, [frame])
        assert is_first(handle) == [False]
    run(model.bfloat16(), [frame.bfloat16()])
    assert is_first(handle) == [True]


def test_inference_mode_may_come_and_go():
    model, video = make_model(), make_video(4)
    handle = apply_eventful(model, TopK(6))
    with torch.inference_mode():
        run(model, video[:2])
        assert is_first(handle) == [False]
    run(model, video[2:3])
    assert is_first(handle) == [True]
    run(model, video[3:])
    assert is_first(handle) == [False]


def in_place(model):
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight.mul_(1.01)


def load(model):
    model.load_state_dict(make_model(seed=5).state_dict())


def swap_through_data(model):
    """What mmengine's EMAHook does before validation."""
    for own, other in zip(model.parameters(), make_model(seed=5).parameters()):
        kept = own.data.clone()
        own.data.copy_(other.data)
        other.data.copy_(kept)


@pytest.mark.parametrize("change", [in_place, load, swap_through_data, nn.Module.double])
def test_any_change_of_weights_starts_clean(change):
    model, video = make_model(), make_video(4)
    handle = apply_eventful(model, TopK(6))
    run(model, video[:3])
    assert is_first(handle) == [False]
    change(model)
    dtype = next(model.parameters()).dtype
    (out,) = run(model, [video[3].to(dtype)])
    assert is_first(handle) == [True]
    handle.remove()
    torch.testing.assert_close(out, run(model, [video[3].to(dtype)])[0], atol=1e-5, rtol=0)


def test_training_is_dense_and_forgets():
    model, video = make_model(), make_video(4)
    handle = apply_eventful(model, TopK(6))
    run(model, video[:2])
    assert model.train() is model and handle.streams == []
    batch = torch.cat(video)
    (out,) = model(batch)
    out.square().mean().backward()
    dense = make_model().train()
    (expected,) = dense(batch)
    expected.square().mean().backward()
    assert torch.equal(out, expected)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), dense.parameters()))
    model.eval()
    run(model, video[:2])
    model.eval()
    run(model, video[2:3])
    assert is_first(handle) == [False], "eval() in evaluation is no change"


def test_streams_kept_are_capped_and_their_memory_is_read():
    model, video = make_model(), make_video(1)
    handle = apply_eventful(model, TopK(6), max_streams=2)
    sizes = []
    for name in "abc":
        with handle.stream(name):
            run(model, video)
        sizes.append(handle.memory_bytes)
    # Three gates and their buffers are 8 C numbers a token and block; the rest is small.
    gates = 8 * CONFIG["embed_dim"] * TOKENS * 3 * 4
    assert gates < sizes[0] < 1.3 * gates
    assert sizes[1] == sizes[2] == 2 * sizes[0]
    assert handle.streams == ["b", "c"]
    refused = pytest.raises(ValueError, match="a batch of 3 streams but max_streams=2")
    with handle.stream(["a", "b", "c"]), refused:
        run(model, [torch.cat(video * 3)])


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_results_kept_in_half_precision_take_less_and_err_little(dtype):
    video = make_video(12)
    model = make_model()
    handle = apply_eventful(model, TopK(6), buffer_dtype=dtype)
    outs = run(model, video)
    whole = apply_eventful(other := make_model(), TopK(6))
    expected = run(other, video)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(outs, expected)]
    assert 0 < max(errors) < 0.05
    # queries, keys and values alone are rounded in a first frame, as they are taken off later
    assert 0 < errors[0] < 0.01
    kept = []
    for block in handle.remembered("unnamed").values():
        qkv = block.attention.qkv
        kept += qkv if isinstance(qkv, tuple) else [qkv]
        kept += [gate.reference for gate in (block.qkv_gate, block.proj_gate, block.mlp_gate)]
        kept += [block.proj.memory, block.mlp.memory]
    assert {t.dtype for t in kept} == {getattr(torch, str(dtype).rpartition(".")[2])}
    saved = sum(t.numel() * 2 for t in kept)
    # a windowed block's output has a further row of padding where it is kept as it came
    assert whole.memory_bytes - handle.memory_bytes == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_what_is_kept_in_half_precision_does_not_drift(dtype, attention):
    """After many frames a model is hardly further from the dense one than without."""
    video = make_video(60)
    dense = run(make_model(), video)
    errors = []
    for options in ({}, dict(buffer_dtype=dtype)):
        apply_eventful(model := make_model(), TopK(6), attention, **options)
        outs = run(model, video)
        errors.append([float((a - b).norm() / b.norm()) for a, b in zip(outs, dense)])
    own, half = (sum(part[-40:]) / 40 for part in errors)
    assert 0 < half < 1.1 * own


def test_what_is_remembered_can_be_read():
    handle = apply_eventful(model := make_model(), TopK(6))
    run(model, make_video(2))
    assert list(handle.remembered("unnamed")) == [0, 1, 2]
    with pytest.raises(KeyError):
        handle.remembered("another")


def test_one_frame_videos_are_dense():
    model, videos = make_model(), [make_video(1, seed)[0] for seed in range(5)]
    dense = run(make_model(), videos)
    handle = apply_eventful(model, TopK(1))
    for name, (frame, expected) in enumerate(zip(videos, dense)):
        with handle.stream(name, 0):
            torch.testing.assert_close(run(model, [frame])[0], expected, atol=1e-5, rtol=0)


def test_a_frame_that_is_not_a_number_spoils_no_other():
    model, video = make_model(), make_video(5)
    handle = apply_eventful(model, TopK(6))
    with handle.stream("other"):
        run(model, video[:1])
    run(model, video[:2])
    broken = video[2].clone()
    broken[0, 0, 3, 3] = float("nan")
    (out,) = run(model, [broken])
    assert out.isnan().any() and not is_first(handle)[0]
    (out,) = run(model, [video[3]])
    assert is_first(handle) == [True]
    torch.testing.assert_close(out, run(make_model(), [video[3]])[0], atol=1e-5, rtol=0)
    with handle.stream("other"):
        (out,) = run(model, [video[1]])
    assert not out.isnan().any() and is_first(handle) == [False]


def test_a_call_that_was_broken_off_in_a_block_starts_clean(monkeypatch):
    model, video = make_model(), make_video(4)
    handle = apply_eventful(model, TopK(6))
    run(model, video[:2])
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[1].mlp, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(model, [video[2]])
    run(model, [video[3]])
    assert is_first(handle) == [True]


def test_a_batch_without_stream_ids_is_refused():
    model = make_model()
    handle = apply_eventful(model, TopK(6))
    batch = torch.cat(make_video(3))
    with pytest.raises(ValueError, match="a batch of 3 frames came without stream ids"):
        run(model, [batch])
    with handle.stream(["a", "b"]), pytest.raises(ValueError, match=r"2 streams .* batch of 3"):
        run(model, [batch])
    run(model, make_video(2))
    assert handle.streams == ["unnamed"] and is_first(handle) == [False]


def test_frames_of_no_stream_are_dense_and_remembered_nowhere():
    model, video = make_model(), make_video(3)
    handle = apply_eventful(model, TopK(6))
    dense = run(make_model(), video)
    with handle.stream([None, "a", None]):
        (out,) = run(model, [torch.cat(video)])
    torch.testing.assert_close(out, torch.cat(dense), atol=1e-5, rtol=0)
    assert handle.streams == ["a"]
    assert [frame.stream for frame in handle.frames] == [None, "a", None]
    assert [tuple(t.shape) for t in handle.passed_tokens()] == [
        (0, 3, 1, TOKENS), (3, 3, 1, TOKENS), (0, 3, 1, TOKENS),
    ]  # fmt: skip


# The handle.


def test_the_policy_may_change_while_a_video_runs():
    model, video = make_model(), make_video(6)
    handle = apply_eventful(model, TopK(6))
    run(model, video[:2])
    assert handle.frames[0].passed == [(6, 6, 6)] * 3
    handle.policy.k = 9
    run(model, video[2:3])
    assert handle.frames[0].passed == [(9, 9, 9)] * 3 and is_first(handle) == [False]
    handle.policy = Always()
    (out,) = run(model, video[3:4])
    torch.testing.assert_close(out, run(make_model(), video[3:4])[0], atol=1e-5, rtol=0)
    with pytest.raises(TypeError, match="policy=7 has no method select"):
        handle.policy = 7


class EveryOther:
    def select(self, error):
        return torch.arange(error.shape[1]).expand_as(error) % 2 == 0


def test_a_users_own_policy_is_a_class_with_one_method():
    model, video = make_model(), make_video(3)
    handle = apply_eventful(model, EveryOther())
    run(model, video)
    assert handle.frames[0].passed == [(18, 18, 18)] * 3
    (passed,) = handle.passed_tokens()
    assert torch.equal(passed, (torch.arange(TOKENS) % 2 == 0).expand(3, 3, 1, -1))


def test_k_above_the_tokens_lets_all_through_and_says_so_once():
    model, video = make_model(), make_video(4)
    apply_eventful(model, TopK(5000))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outs = run(model, video)
    said = [str(w.message) for w in caught if "k=5000" in str(w.message)]
    assert said == ["TopK: k=5000 but the frame has 35 tokens; all of them pass."]
    for out, dense in zip(outs, run(make_model(), video)):
        torch.testing.assert_close(out, dense, atol=1e-5, rtol=0)


def test_removing_gives_the_model_back():
    model, video = make_model(), make_video(3)
    dense, parameters = run(model, video), [id(p) for p in model.parameters()]
    state, types = model.state_dict(), [type(m) for m in model.modules()]
    handle = apply_eventful(model, TopK(6))
    assert list(model.state_dict()) == list(state)
    assert isinstance(model, ViTDet) and handle.attached
    assert all(not torch.equal(a, b) for a, b in zip(run(model, video)[1:], dense[1:]))
    handle.remove()
    handle.remove()
    assert not handle.attached and handle.memory_bytes == 0
    assert [type(m) for m in model.modules()] == types
    assert [id(p) for p in model.parameters()] == parameters
    assert all(torch.equal(a, b) for a, b in zip(run(model, video), dense))
    with pytest.raises(ValueError, match="Eventful is not attached to this ViTDet"):
        EventfulHandle(model)


def test_applying_again_replaces_and_says_so():
    model, video = make_model(), make_video(3)
    first = apply_eventful(model, TopK(6))
    run(model, video)
    with pytest.warns(UserWarning, match=r"with TopK\(k=6\) and is replaced by TopK\(k=8\)"):
        second = apply_eventful(model, TopK(8), "delta")
    assert not first.attached and second.attached and second.streams == []
    run(model, video)
    assert second.frames[0].passed == [(8, 8, 8)] * 3


def test_a_copied_model_has_the_method_and_no_streams():
    model, video = make_model(), make_video(3)
    handle = apply_eventful(model, TopK(6))
    outs = run(model, video)
    copied = copy.deepcopy(model)
    theirs = EventfulHandle(copied)
    assert theirs.streams == [] and theirs.policy.k == 6 and handle.streams == ["unnamed"]
    assert all(torch.equal(a, b) for a, b in zip(run(copied, video), outs))
    theirs.remove()
    assert handle.attached and type(copied) is ViTDet


def test_outputs_carry_no_gradients_and_are_the_callers_own():
    model, video = make_model(), make_video(3)
    apply_eventful(model, TopK(6))
    expected = fresh(video)
    for frame, wanted in zip(video, expected):
        (out,) = model(frame)
        assert not out.requires_grad
        assert torch.equal(out, wanted)
        out.fill_(float("nan"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(buffer_dtype="half8"), ValueError, "buffer_dtype='half8' is not a dtype of torch"),
        (
            dict(buffer_dtype=torch.int8),
            ValueError,
            "buffer_dtype=torch.int8 is not a floating-point dtype",
        ),
        (dict(attention="sparse"), ValueError, "attention='sparse' must be one of tokenwise"),
        (dict(attention=3), TypeError, "attention=3 has no methods start and step"),
        (dict(gate_position="middle"), ValueError, "gate_position='middle' must be one of"),
        (dict(reference="first"), ValueError, "reference='first' must be one of"),
        (
            dict(kv_pool_size=0),
            ValueError,
            "kv_pool_size=0 must be a whole number of tokens, at least 1",
        ),
        (dict(max_streams=0), ValueError, "max_streams=0 must be a whole number, at least 1"),
        (dict(policy="TopK"), TypeError, "policy='TopK' has no method select"),
    ],
)
def test_wrong_arguments_change_nothing(options, error, message):
    model = make_model()
    with pytest.raises(error, match=message):
        apply_eventful(model, **{"policy": TopK(6), **options})
    assert type(model) is ViTDet


# Other hosts.

TIMM = [
    "timm class token", "timm mean pooling", "timm attention pooling", "timm odd token count",
    "timm distillation token", "timm DeiT-3", "timm DINOv2 registers", "timm query-key norm",
    "timm EVA", "timm EVA-02", "timm features_only",
]  # fmt: skip
IMAGE_HOSTS = [
    *(TIMM if importlib.util.find_spec("timm") else ()),
    "mmpretrain class token", "mmpretrain DeiT", "mmpretrain DeiT-3", "mmpretrain SwiGLU",
    "mmpretrain maps", "mmpretrain EVA-02", "mmpretrain ViTSAM", "mmpretrain ViTSAM maps",
    "mmpretrain BEiT",
    "segment_anything", "mmvitaccel ViTDet", "mmvitaccel ViTDet, no positions",
    *(name for name in hf_models.HOSTS if "VideoMAE" not in name),
    *rfdetr_models.HOSTS,
]  # fmt: skip


def first_tensor(outputs):
    while not isinstance(outputs, torch.Tensor):
        outputs = outputs[0]
    return outputs


def on_hosts(*names):
    return pytest.mark.parametrize("host", [host_param(name) for name in names], indirect=True)


@pytest.mark.parametrize("attention", ["tokenwise", "delta", "exact"])
@on_hosts(*IMAGE_HOSTS)
def test_image_transformers_equal_themselves_when_all_passes(host, attention):
    model, frame = host
    frames = [frame[:1] + 0.1 * i for i in range(3)]
    with torch.no_grad():
        dense = [model(f) for f in frames]
        handle = apply_eventful(model, Always(), attention)
        for f, wanted in zip(frames, dense):
            torch.testing.assert_close(model(f), wanted, rtol=1e-4, atol=5e-5)
        assert is_first(handle) == [False]
        handle.policy = TopK(3)
        moved = frames[-1] + torch.randn(frames[-1].shape, generator=torch.Generator())
        few = model(moved)
        handle.remove()
        whole = model(moved)
    few, whole = first_tensor(few), first_tensor(whole)
    assert handle.frames[0].passed == [(3, 3, 3)] * len(handle.frames[0].passed)
    assert not torch.allclose(few, whole, atol=1e-3)


@on_hosts("timm class token")
def test_frames_count_however_tokens_enter(host):
    model, frame = host
    handle = apply_eventful(model, TopK(3))
    with torch.no_grad():
        for i, call in enumerate((model, model.forward_features, model.forward_intermediates)):
            call(frame[:1])
            assert is_first(handle) == [i == 0]
            assert len(handle.frames[0].passed) == 3
        model.forward_intermediates(frame[:1], indices=[0], stop_early=True)
        model(frame[:1])
    assert is_first(handle) == [False]


@on_hosts("mmcv layers", "mmcv layers, tokens first")
def test_a_neck_of_transformer_layers(host):
    model, tokens = host
    handle = apply_eventful(model, Always())
    with torch.no_grad():
        out = [model(tokens[:1] + i) for i in range(2)]
        assert is_first(handle) == [False]
        handle.remove()
        for i in range(2):
            torch.testing.assert_close(out[i], model(tokens[:1] + i), rtol=1e-4, atol=1e-5)


@on_hosts("mmaction2 VideoMAE", "mmaction2 TimeSformer space", "transformers VideoMAE")
def test_clip_models_are_refused_with_the_reason(host):
    model, _ = host
    with pytest.raises(ValueError, match="takes a whole clip at once, so there is no earlier"):
        apply_eventful(model, TopK(3))


@on_hosts("timm class token")
def test_pooling_without_a_grid_is_refused(host):
    model, frame = host
    apply_eventful(model, TopK(3), kv_pool_size=2)
    with pytest.raises(ValueError, match="kv_pool_size=2 needs the token grid"):
        model(frame[:1])


def test_merging_tokens_on_the_same_model_is_refused():
    model = make_model()
    handle = apply_eventful(model, TopK(6))
    with pytest.raises(RuntimeError, match=r"Eventful is already attached.*remove Eventful first"):
        apply_tome(model, r=2)
    handle.remove()
    apply_tome(model, r=2)
    with pytest.raises(RuntimeError, match=r"ToMe is already attached.*remove ToMe first"):
        apply_eventful(model, TopK(6))


def test_what_is_no_transformer_is_refused():
    with pytest.raises(ValueError, match="supported"):
        apply_eventful(nn.Linear(2, 2), TopK(6))
