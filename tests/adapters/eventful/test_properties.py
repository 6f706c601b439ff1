"""What holds for any model, policy and order of frames: drawn by hypothesis."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mmvitaccel import Always, Threshold, TopFraction, TopK, apply_eventful
from mmvitaccel.models.vitdet.backbone import ViTDet

PATCH = 4
MODES = ("exact", "tokenwise", "delta")


@st.composite
def models(draw) -> ViTDet:
    """A ViTDet of any block shape, with random weights."""
    heads, depth = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    model = ViTDet(
        img_size=PATCH * draw(st.integers(1, 8)),
        patch_size=PATCH,
        embed_dim=heads * draw(st.sampled_from((1, 3, 4, 8, 16))),
        depth=depth,
        num_heads=heads,
        mlp_ratio=draw(st.sampled_from((1, 2, 4))),
        qkv_bias=draw(st.booleans()),
        window_size=draw(st.integers(1, 6)),
        window_block_indexes=sorted(draw(st.sets(st.integers(0, depth - 1)))),
        use_abs_pos=draw(st.booleans()),
        use_rel_pos=draw(st.booleans()),
        rel_pos_resize=draw(st.sampled_from(("table", "pairs"))),
        pretrain_img_size=PATCH * draw(st.integers(1, 5)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


@dataclass(frozen=True)
class Event:
    """One thing that happens to an eventful model."""

    what: str
    stream: str
    size: tuple[int, int, int]
    share: float


# Images of a batch (which go in lockstep), and their height and width.
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 36), st.integers(1, 36))
EVENTS = st.builds(
    Event,
    st.sampled_from(("frame", "frame", "frame", "cut", "reset", "reset all", "train")),
    st.sampled_from("ab"),
    st.sampled_from([(2, 36, 20), (1, 20, 36), (2, 9, 9)]) | SIZES,
    st.sampled_from((0.0, 0.2, 1.0)),
)
HISTORIES = st.lists(EVENTS, min_size=2, max_size=12)


class Video:
    """Frames of any size; in each image another share of the pixels changes each time."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)
        self.frames: dict[tuple[int, ...], torch.Tensor] = {}

    def frame(self, size, share):
        batch, *sides = size
        noise = torch.randn(batch, 3, *sides, generator=self.generator)
        before = self.frames.get(size, noise)
        each = share / torch.arange(1, batch + 1).view(-1, 1, 1, 1)
        moving = torch.rand(batch, 1, *sides, generator=self.generator) < each
        self.frames[size] = torch.where(moving, noise, before)
        return self.frames[size]


def play(model, handle, events):
    """Each frame of a history and what the model makes of it."""
    videos = {name: Video(seed) for seed, name in enumerate("ab")}
    for event in events:
        if event.what.startswith("reset"):
            handle.reset(event.stream if event.what == "reset" else None)
        if event.what == "train":
            model.train()
            model.eval()
        frame = videos[event.stream].frame(event.size, event.share)
        # Two histories are played side by side; a context that is open at a yield would be
        # closed in the other one's turn, and leave gradients off.
        with torch.no_grad(), handle.stream(event.stream, cut=event.what == "cut"):
            out = model(frame)[0]
        yield frame, out


def assert_close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item()
    assert error <= tolerance * max(1.0, expected.abs().max().item())


@given(
    models(),
    st.sampled_from(MODES),
    st.sampled_from(("after_norm", "before_norm")),
    st.sampled_from((TopK(10**6), TopFraction(1.0), Threshold(0.0), Always())),
    HISTORIES,
)
def test_with_every_token_let_through_it_is_the_dense_model(model, mode, position, policy, events):
    # The paper's accumulator leaves out what a part that changed does to the rest (section 4.2).
    assume(mode != "delta" or not isinstance(policy, Threshold))
    dense = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TopK: k=")
        handle = apply_eventful(model, policy, mode, gate_position=position)
        for frame, out in play(model, handle, events):
            with torch.no_grad():
                assert_close(out, dense(frame)[0])


class Drawn:
    """Lets random tokens through, the same ones in each copy: as an index or as a ragged mask."""

    def __init__(self, seed: int, masks: bool):
        self.generator, self.masks = torch.Generator().manual_seed(seed), masks

    def select(self, error):
        order = torch.rand(error.shape, generator=self.generator)
        if self.masks:
            return order < torch.rand(len(error), 1, generator=self.generator)
        k = int(torch.randint(1, error.shape[1] + 1, (), generator=self.generator))
        return order.topk(k, dim=1).indices


@given(
    models(),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from(("after_norm", "before_norm")),
    st.sampled_from(("last_passed", "last_frame")),
    st.sampled_from((1, 1, 2, 3)),
    HISTORIES,
)
def test_exact_is_attention_over_the_gated_tokens(
    model, seed, masks, position, reference, pool, events
):
    other = copy.deepcopy(model)
    how = dict(gate_position=position, reference=reference, kv_pool_size=pool)
    exact = apply_eventful(model, Drawn(seed, masks), "exact", **how)
    gated = apply_eventful(other, Drawn(seed, masks), "tokenwise", **how)
    for (_, a), (_, b) in zip(play(model, exact, events), play(other, gated, events)):
        assert_close(a, b)
        for one, same in zip(exact.passed_tokens(), gated.passed_tokens()):
            assert torch.equal(one, same)


@given(models(), st.sampled_from(MODES), HISTORIES)
def test_copies_and_state_dicts_carry_no_stream_and_pickling_is_refused(model, mode, events):
    bare, size = copy.deepcopy(model), events[-1].size
    handle = apply_eventful(model, TopFraction(0.3), mode)
    for _ in play(model, handle, events):
        pass
    assert handle.streams
    state = model.state_dict()
    assert list(state) == list(bare.state_dict())
    assert all(torch.equal(state[name], value) for name, value in bare.state_dict().items())
    copied = copy.deepcopy(model)
    theirs = type(handle)(copied)
    assert theirs.streams == [] and theirs.memory_bytes == 0 and theirs.frames == []
    frame = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad(), theirs.stream(events[-1].stream):
        assert_close(copied(frame)[0], bare(frame)[0], 1e-5)
    assert theirs.frames[0].first
    message = r"^A ViTDet with Eventful on it cannot be pickled: save its state_dict"
    with pytest.raises(RuntimeError, match=message):
        pickle.dumps(model)
    handle.remove()
    assert not pickle.loads(pickle.dumps(model)).training
