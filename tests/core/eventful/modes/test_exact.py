from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention.rel_pos import RelPos, offset_rows
from mmvitaccel.core.eventful.gates import host_reads
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.modes import exact, running_sums
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.eventful.modes.mode import QKV, Change, Logits
from mmvitaccel.core.eventful.modes.running_sums import Guard
from mmvitaccel.core.kernels import operators

GRID = (6, 8)
TOKENS, HEADS, DIM = 48, 3, 16
SCALE = DIM**-0.5


@pytest.fixture(params=["asking", "by operators", "not asking"])
def host(request, monkeypatch):
    """The path of a CPU, without the compiled loop too, and of a device not to be waited for."""
    if request.param != "asking":
        monkeypatch.setattr(operators, "kernels", lambda: None)
    if request.param == "not asking":
        monkeypatch.setattr(running_sums, "reading_is_free", lambda device: False)
    return request.param


def make_logits(rel_pos=True, seed=0):
    torch.manual_seed(seed)
    if not rel_pos:
        return Logits(SCALE)
    tables = (torch.randn(2 * side - 1, DIM) * 0.3 for side in GRID)
    return Logits(SCALE, RelPos(*(offset_rows(t, side) for t, side in zip(tables, GRID))))


def dense(qkv, logits):
    """Attention from its definition, in double precision."""
    q, k, v = (t.double() for t in qkv)
    scores = q @ k.transpose(-1, -2) * logits.scale
    if logits.rel_pos is not None:
        y, x = torch.arange(TOKENS) // GRID[1], torch.arange(TOKENS) % GRID[1]
        table = logits.rel_pos.rows_h[y][:, y] + logits.rel_pos.rows_w[x][:, x]
        scores = scores + torch.einsum("bhqd,qkd->bhqk", q, table.double())
    return scores.softmax(-1) @ v


def by_head(out):
    """(B, h, N, D) of an output, whose every token is read."""
    return out.block(slice(None)).unflatten(-1, (HEADS, DIM)).transpose(1, 2)


class Video:
    """Queries, keys and values of which some tokens change, as gates would leave them."""

    def __init__(self, batch=1, mode=None, logits=None):
        self.mode, self.logits = mode or ExactAttention(), logits or make_logits()
        self.qkv = QKV(*(torch.randn(batch, HEADS, TOKENS, DIM) for _ in range(3)))
        self.out, self.memory = self.mode.start(self.qkv, self.logits)

    def step(self, index, new, chosen=None):
        """Tokens ``index`` (B, M) become ``new``, three times (B, heads, M, D)."""
        selection = Selection(index, TOKENS, chosen)
        old_k, old_v = (selection.gather(t) for t in self.qkv[1:])
        for buffer, values in zip(self.qkv, new):
            selection.put(buffer, values)
        change = Change(selection, selection, old_k.clone(), old_v.clone())
        self.out = by_head(self.mode.step(self.memory, self.qkv, change, self.logits))
        return self.error()

    def random_step(self, changed, size=1.0):
        batch = self.qkv.q.shape[0]
        index = torch.stack([torch.randperm(TOKENS)[:changed] for _ in range(batch)])
        return self.step(index, [torch.randn(batch, HEADS, changed, DIM) * size for _ in range(3)])

    def error(self):
        """Largest error over the largest value."""
        expected = dense(self.qkv, self.logits)
        return float((self.out - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("rel_pos", [True, False])
@pytest.mark.parametrize("changed", [1, 7, 20, 30, 48])
def test_equals_dense_attention_frame_after_frame(host, changed, rel_pos):
    video = Video(batch=2, logits=make_logits(rel_pos))
    assert video.error() < 1e-6
    assert max(video.random_step(changed) for _ in range(40)) < 2e-5


@pytest.mark.parametrize("budget", [2**18, 300, 16])
def test_blocks_of_heads_and_rows_change_nothing(monkeypatch, budget):
    monkeypatch.setattr(exact, "CPU_BLOCK_LOGITS", budget)
    monkeypatch.setattr(operators, "kernels", lambda: None)
    video = Video(batch=2)
    assert max(video.random_step(5) for _ in range(10)) < 2e-5


def test_nothing_changed_and_ragged_rows(host):
    video = Video(batch=2)
    nothing = torch.empty(2, 0, dtype=torch.int64)
    empty = [torch.empty(2, HEADS, 0, DIM)] * 3
    assert max(video.step(nothing, empty) for _ in range(3)) < 1e-6
    index = torch.tensor([[3, 7, 9], [40, 0, 1]])
    chosen = torch.tensor([[True, True, True], [True, False, False]])
    before = video.qkv.k.clone()
    assert video.step(index, [torch.randn(2, HEADS, 3, DIM) for _ in range(3)], chosen) < 1e-5
    assert torch.equal(video.qkv.k[1, :, :2], before[1, :, :2])


def test_a_token_that_dominates_all_rows_and_leaves(host):
    video = Video(logits=make_logits(rel_pos=False))
    video.qkv.q.copy_(video.qkv.q.abs() + 0.5)
    video.out, video.memory = video.mode.start(video.qkv, video.logits)
    errors = []
    for frame in range(12):
        strength = 12.0 if frame % 3 == 1 else 0.1
        new = [torch.randn(1, HEADS, 1, DIM) for _ in range(3)]
        new[0], new[1] = new[0].abs(), torch.full_like(new[1], strength)
        errors.append(video.step(torch.tensor([[5]]), new))
    if host != "not asking":
        assert max(errors) < 1e-5
    else:  # more rows in need than the quota: put right in the next frame
        overdue = [frame for frame in range(12) if errors[frame] > 1e-5]
        assert all(errors[frame + 1] < 1e-5 for frame in overdue[:-1])
        video.mode = ExactAttention(Guard(quota=TOKENS))
        assert max(video.random_step(2) for _ in range(3)) < 1e-5


def decay_by_40_percent_a_frame(smallest_share):
    """Largest error while a token that dominates all rows fades: no single step falls below 0.6."""
    guard = Guard(smallest_share=smallest_share, turn_frames=10**6)
    video = Video(logits=make_logits(rel_pos=False), mode=ExactAttention(guard))
    video.qkv.q.copy_(1 + 0.01 * torch.randn_like(video.qkv.q))
    video.out, video.memory = video.mode.start(video.qkv, video.logits)
    logits = torch.log(torch.tensor(0.6 ** -torch.arange(60.0, -40, -1).double())).float()
    errors = []
    for logit in logits:
        k = torch.full((1, HEADS, 1, DIM), float(logit) / (DIM * SCALE))
        new = [torch.ones(1, HEADS, 1, DIM), k, torch.full((1, HEADS, 1, DIM), 3.0)]
        errors.append(video.step(torch.tensor([[5]]), new))
    return max(errors)


def test_a_dominating_token_that_decays_is_guarded_against_and_needs_to_be():
    assert decay_by_40_percent_a_frame(Guard().smallest_share) < 5e-5
    assert not decay_by_40_percent_a_frame(0.0) < 1e-2


@pytest.mark.parametrize("size", [10.0, 30.0])
def test_logits_of_80_and_beyond_overflow_nothing(size):
    video = Video(logits=make_logits(rel_pos=False))
    errors = [video.random_step(6, size=size**0.5) for _ in range(60)]
    largest = (video.qkv.q @ video.qkv.k.transpose(-1, -2) * SCALE).abs().max()
    assert largest > 30
    assert max(errors) < 1e-4


def test_a_new_key_far_above_the_shift_is_attended_anew():
    video = Video(logits=make_logits(rel_pos=False))
    new = [torch.randn(1, HEADS, 1, DIM) for _ in range(3)]
    new[1] = video.qkv.q[:, :, 9:10] * 200
    assert video.step(torch.tensor([[3]]), new) < 1e-5
    assert float(video.memory.denominator.max()) <= running_sums.LARGEST_SUM
    assert all(torch.isfinite(t).all() for t in (video.memory.numerator, video.memory.denominator))


def test_every_row_takes_its_turn():
    video = Video(mode=ExactAttention(Guard(turn_frames=12)))
    video.memory.numerator += 1.0  # as if rounding had built up
    errors = [video.random_step(2, size=0.1) for _ in range(12)]
    assert errors[0] > 0.1 and errors[-1] < 1e-5


def test_long_run_does_not_drift():
    video = Video()
    errors = [video.random_step(8) for _ in range(600)]
    assert max(errors) < 5e-5
    assert max(errors[-50:]) < 4 * max(errors[:50]) + 1e-6


def test_dense_where_that_is_cheaper(monkeypatch):
    calls = []
    original = exact.exchange_keys
    monkeypatch.setattr(exact, "exchange_keys", lambda *a: (calls.append(1), original(*a)))
    video = Video()
    for changed in (10, 16, 17, 40):
        assert video.random_step(changed) < 1e-5
        # 2 M N + 4 (N - M) M reaches 0.8 of 2 N N between M = 16 and 17 of N = 48
        assert bool(calls) == (changed < 17)
        calls.clear()
    video.mode = ExactAttention(dense_share=0.5)
    assert video.random_step(10) < 1e-5 and not calls


def test_half_precision_inputs_are_summed_in_single():
    mode, logits = ExactAttention(), make_logits(rel_pos=False)
    video = Video(mode=mode, logits=logits)
    video.qkv = QKV(*(t.bfloat16() for t in video.qkv))
    video.out, video.memory = mode.start(video.qkv, logits)
    first = video.error()
    assert video.memory.numerator.dtype == torch.float32
    errors = [video.random_step(6) for _ in range(100)]
    assert video.out.dtype == torch.bfloat16
    assert max(errors) < 2 * max(first, 2**-8)


def test_reading_waits_on_every_device_but_a_cpu():
    assert host_reads.reading_is_free(torch.device("cpu"))
    assert not host_reads.reading_is_free(torch.device("cuda:0"))
