from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.gates.gate import TokenGate
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.modes.mode import QKV, Logits
from mmvitaccel.core.eventful.modes.windowed_attention import WindowedAttention
from mmvitaccel.core.kernels import operators

GRID, SIZE, HEADS, DIM = (8, 6), 4, 2, 16  # four windows, two of them with padding


@pytest.fixture(params=[True, False], ids=["compiled", "by operators"])
def _kernels(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(operators, "kernels", lambda: None)


@pytest.mark.usefixtures("_kernels")
def test_errors_are_those_of_the_whole_output_whichever_windows_change():
    torch.manual_seed(0)
    tokens = GRID[0] * GRID[1]
    qkv = QKV(*torch.randn(3, 1, HEADS, tokens, DIM))
    padding, logits = QKV(*torch.randn(3, 1, HEADS, 1, DIM)), Logits(DIM**-0.5)
    attention, out = WindowedAttention.start(qkv, padding, logits, GRID, SIZE)
    gate = TokenGate(out.clone())
    everywhere = torch.tensor([[0, 5, 40, 47]])  # a token of each window
    for index in (everywhere, torch.tensor([[1]]), everywhere, torch.tensor([[46, 42]])):
        new = QKV(*torch.randn(3, 1, HEADS, index.shape[1], DIM))
        for kept, values in zip(qkv, new):
            kept[:, :, index[0]] = values
        _, expected = WindowedAttention.start(qkv, padding, logits, GRID, SIZE)
        attended = attention.take(new, Selection(index, tokens), gate)
        errors = (gate.reference - expected).norm(dim=-1)
        torch.testing.assert_close(attended.errors, errors, rtol=1e-4, atol=1e-5)
        passing = Selection(errors.topk(3, dim=1).indices, tokens)
        passed = attended.tokens(passing)
        torch.testing.assert_close(passed, expected[:, passing.index[0]], rtol=1e-4, atol=1e-5)
        gate.let_through(passing, passed, attended.block)
