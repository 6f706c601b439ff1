"""Half precision: how far an eventful model is from single precision, without drifting sums."""

from __future__ import annotations

import copy

import pytest
import torch

from mmvitaccel import Always, TopK, apply_eventful
from mmvitaccel.core.kernels import half_linear
from mmvitaccel.testing.models import sharing_weights, vitdet

SIZE, NUM_FRAMES = 320, 6  # 20 x 20 tokens: windows, some of them partial, and global blocks


class Recorded:
    """A policy that notes what another one chose, or chooses what was noted."""

    def __init__(self, policy=None, chosen=()):
        self.policy, self.chosen = policy, list(chosen)

    def select(self, error):
        if self.policy is None:
            return self.chosen.pop(0)
        self.chosen.append(self.policy.select(error))
        return self.chosen[-1]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = vitdet(
        img_size=SIZE, embed_dim=192, num_heads=3, depth=4, window_size=14,
        window_block_indexes=(0, 2),
    )  # fmt: skip
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def frames():
    torch.manual_seed(1)
    frame, made = torch.randn(1, 3, SIZE, SIZE), []
    for index in range(NUM_FRAMES):
        frame = frame.clone()
        frame[..., 40 * index : 40 * index + 60, 100:220] = torch.randn(1, 3, 60, 120)
        made.append(frame)
    return made


@pytest.fixture(params=["converted", "native"])
def way(request, monkeypatch):
    monkeypatch.setattr(half_linear, "_single_is_faster", lambda: request.param == "converted")


@pytest.fixture(params=["model", "autocast"])
def half(request, model):
    """The model in half precision, and how to call it."""
    if request.param == "model":
        own = copy.deepcopy(model).bfloat16()
        return own, lambda x: own(x.bfloat16())[0].float()
    own = sharing_weights(model)

    def call(x):
        with torch.autocast("cpu", torch.bfloat16):
            return own(x)[0].float()

    return own, call


def distance(given, expected):
    return float((given - expected).norm() / expected.norm())


def outputs(call, frames, policy=None, model=None):
    handle = apply_eventful(model, policy) if policy is not None else None
    with torch.no_grad():
        out = [call(frame) for frame in frames]
    if handle is not None:
        handle.remove()
    return out


@pytest.mark.usefixtures("way")
def test_error_where_everything_passes(model, half, frames):
    own, call = half
    dense = outputs(lambda x: model(x)[0], frames)
    of_half = outputs(call, frames)
    eventful = outputs(call, frames, Always(), own)
    for given, rounded, expected in zip(eventful, of_half, dense):
        assert distance(given, expected) <= 1.5 * distance(rounded, expected)


@pytest.mark.usefixtures("way")
def test_error_where_the_same_tokens_pass(model, half, frames):
    own, call = half
    single = sharing_weights(model)
    recorded = Recorded(TopK(100))
    expected = outputs(lambda x: single(x)[0], frames, recorded, single)
    eventful = outputs(call, frames, Recorded(chosen=recorded.chosen), own)
    dense, of_half = outputs(lambda x: model(x)[0], frames), outputs(call, frames)
    for given, wanted, rounded, whole in zip(eventful, expected, of_half, dense):
        assert distance(given, wanted) <= 1.5 * distance(rounded, whole)


def test_sums_do_not_drift(frames):
    """What running sums put on and take off is the same number, however often."""
    torch.manual_seed(0)
    block = vitdet(
        img_size=SIZE, embed_dim=192, num_heads=3, depth=1, window_block_indexes=()
    ).eval().requires_grad_(False).bfloat16()  # fmt: skip
    handle = apply_eventful(block, TopK(40))
    with torch.no_grad():
        for index in range(200):
            block(frames[index % len(frames)].bfloat16())
        attention = handle.remembered(handle.streams[0])[0].attention
        sums, (q, k, v) = attention.memory, (t.float() for t in attention.qkv)
        terms = attention.logits.terms(q).spread()
        logits = q @ k.transpose(-1, -2) * attention.logits.scale + terms
        expected = logits.softmax(-1) @ v
    given = sums.numerator / sums.denominator[..., None]
    assert distance(given, expected) < 1e-5


@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-4), (torch.float16, 1e-2)])
def test_other_precisions_choose_as_single_does(model, frames, attention, dtype, apart):
    single, other = sharing_weights(model), copy.deepcopy(model).to(dtype)
    recorded = Recorded(TopK(100))
    apply_eventful(single, recorded, attention)
    handle = apply_eventful(other, Always(), attention)
    with torch.no_grad():
        expected = [single(frame)[0] for frame in frames[:3]]
        handle.policy = Recorded(chosen=recorded.chosen)
        given = [other(frame.to(dtype))[0] for frame in frames[:3]]
    assert all(out.dtype == dtype for out in given)
    assert all(distance(out.double(), wanted) < apart for out, wanted in zip(given, expected))


def test_half_precision_of_the_other_kind_is_refused_in_a_sentence(frames):
    block = vitdet(img_size=64, embed_dim=32, num_heads=2, depth=1, window_block_indexes=())
    apply_eventful(block.eval().bfloat16(), TopK(4), buffer_dtype="float16")
    with torch.no_grad(), pytest.raises(ValueError, match=r"torch.float16 but .* torch.bfloat16"):
        block(frames[0][..., :64, :64].bfloat16())
