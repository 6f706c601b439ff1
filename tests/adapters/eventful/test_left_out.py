"""What a frame left out: the squared error that did not pass, over the tokens' squared norm."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import Always, Threshold, TopK, apply_eventful, apply_eventful_neck
from mmvitaccel.core.eventful.gates.gate import TokenGate, left_out
from mmvitaccel.core.eventful.gates.selection import Selection, everything, from_mask
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from mmvitaccel.testing.models import vitdet

SMALL = dict(
    img_size=128, embed_dim=32, depth=3, num_heads=2, window_size=4, window_block_indexes=(0, 2)
)


def frames(count, seed=0):
    torch.manual_seed(seed)
    return torch.randn(count, 1, 3, 128, 128)


def info_after(policy, video, **options):
    torch.manual_seed(1)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, policy, **options)
    with torch.no_grad():
        infos = []
        for frame in video:
            model(frame)
            infos.append(handle.frames[0])
    return infos


@pytest.mark.parametrize("reference", ["last_passed", "last_frame"])
def test_a_gate_by_the_definition(reference):
    torch.manual_seed(0)
    gate, passed_before = None, None
    for _ in range(4):
        x = torch.randn(2, 9, 5)
        if gate is None:
            gate, passed_before = TokenGate(x.clone(), reference), x.clone()
            continue
        errors = (passed_before - x).norm(dim=-1)
        mask = torch.rand(2, 9) < 0.4
        mask[0, :3] = mask[1, 0] = True  # ragged: each of the two has its own number
        selection = from_mask(mask)
        expected = errors[~mask].square().sum() / passed_before.square().sum()
        given = gate.left_out(selection, errors)
        assert given.item() == pytest.approx(expected.item(), rel=1e-5)
        gate.let_through(selection, selection.gather(x), lambda block, x=x: x[:, block])
        keep = mask.unsqueeze(-1) if reference == "last_passed" else torch.tensor(True)
        passed_before = torch.where(keep, x, passed_before)


def test_frames_can_be_had_without_their_counts():
    torch.manual_seed(1)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, TopK(8))
    assert handle.uncounted_frames == []
    with torch.no_grad():
        for frame in frames(2):
            model(frame)
    (plain,), (counted,) = handle.uncounted_frames, handle.frames
    assert (plain.stream, plain.first, plain.num_tokens) == (counted.stream, False, 64)
    assert plain.passed == [] and len(counted.passed) == 3


def test_nothing_is_left_out_where_all_pass():
    errors, squares = torch.ones(1, 4), torch.ones(1, 4)
    assert left_out(everything(torch.zeros(1, 4, 2)), errors, squares) == 0
    index = torch.tensor([[2, 0]])
    assert left_out(Selection(index, 4), errors, squares) == 0.5
    assert left_out(Selection(index, 4), errors * 0, squares * 0) == 0


@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
def test_of_a_model(attention):
    video = frames(3)
    by_k = {}
    for k in (4, 16, 63):
        first, second, _ = info_after(TopK(k), video, attention=attention)
        assert first.left_out == 0 and first.left_out_by_gate == [(0, 0, 0)] * 3
        assert len(second.left_out_by_gate) == 3
        gates = [share for block in second.left_out_by_gate for share in block]
        assert second.left_out == pytest.approx(sum(gates) / 9)
        by_k[k] = second.left_out
    assert by_k[4] > by_k[16] > by_k[63] > 0
    for policy in (Always(), TopK(64)):
        assert [info.left_out for info in info_after(policy, video, attention=attention)] == [0] * 3
    still = [video[0]] * 3
    assert max(info.left_out for info in info_after(TopK(4), still, attention=attention)) < 1e-12
    everything_left = info_after(Threshold(1e9), video, attention=attention)[1]
    assert all(share > by_k[4] / 10 for share in everything_left.left_out_by_gate[0][:1])


def test_of_a_frame_of_no_stream_and_of_two_streams():
    torch.manual_seed(1)
    model = vitdet(**SMALL).eval()
    handle = apply_eventful(model, TopK(4))
    a, b = frames(2), frames(2, seed=5)
    alone = info_after(TopK(4), a)[1].left_out
    with torch.no_grad():
        with handle.stream(None):
            model(a[0])
        assert handle.frames[0].left_out == 0
        for first, second in zip(a, b):
            with handle.stream(["a", "b"]):
                model(torch.cat([first, second]))
    assert handle.frames[0].left_out == pytest.approx(alone, rel=1e-5)
    assert handle.frames[1].left_out != pytest.approx(alone, rel=1e-3)


def test_of_a_neck():
    torch.manual_seed(0)
    neck = SimpleFPN(32, 8).eval()
    handle = apply_eventful_neck(neck, TopK(4))
    first, second = torch.randn(2, 1, 32, 8, 8)
    with torch.no_grad():
        neck(first)
        assert handle.frames[0].left_out == 0
        neck(second)
    errors = (first - second)[0].flatten(1).norm(dim=0).square().sort().values
    expected = errors[:-4].sum() / first.square().sum()
    assert handle.frames[0].left_out == pytest.approx(expected.item(), rel=1e-5)
