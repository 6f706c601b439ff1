"""What holds for ToMe on every supported host."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmvitaccel.adapters.attach import detach, is_attached, link
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.tome.apply import apply_tome


def outputs(result):
    """All tensors of a result, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):  # an output of transformers
        result = [part for part in result.values() if part is not None]
    return [t for part in result for t in outputs(part)]


def run(model, x):
    with torch.no_grad():
        return outputs(model(x))


def snapshot(model):
    """Identity of everything that makes up a model."""
    modules = [(name, id(m), type(m), list(vars(m).items())) for name, m in model.named_modules()]
    return modules, [(name, id(p)) for name, p in model.named_parameters()]


def close(first, second, tolerance):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = max(1.0, a.abs().max().item())
        assert (a - b).abs().max().item() <= tolerance * scale


def rounds_its_softmax(model):
    """Whether the host computes it in single precision whatever its input: transformers' eager."""
    config = getattr(locate(model)[1], "config", None)
    return getattr(config, "_attn_implementation", None) == "eager"


def test_r_0_changes_no_output(host):
    model, x = host
    expected = run(model, x)
    apply_tome(model, 0)
    close(expected, run(model, x), 1e-6)
    double, x64 = copy.deepcopy(model).double(), x.double()
    ours = run(double, x64)
    detach(locate(double)[1], "ToMe")
    close(run(double, x64), ours, 1e-6 if rounds_its_softmax(double) else 1e-12)


def test_merging_changes_the_outputs_and_keeps_their_shapes(host):
    model, x = host
    expected = run(model, x)
    handle = apply_tome(model, 3)
    merged = run(model, x)
    for a, b in zip(expected, merged):
        assert a.shape == b.shape
        assert torch.isfinite(b).all()
        assert not torch.allclose(a, b, atol=1e-4)
    handle.r = 0
    close(expected, run(model, x), 1e-6)


def test_info_tells_every_block(host):
    model, x = host
    handle = apply_tome(model, [1, 0, 2], trace_source=True)
    with pytest.raises(RuntimeError, match="no forward pass has run yet"):
        _ = handle.info
    run(model, x)
    info = handle.info
    adapter = find_adapter(handle.model)
    blocks = adapter.blocks(handle.model)
    restores = link(blocks[0]).info[1].keeps_grid
    merged = [1, 0, 2] if restores else [1, 1, 3]
    assert info.tokens == [source.shape[2] - r for source, r in zip(info.sources, merged)]
    for tokens, size, source in zip(info.tokens, info.sizes, info.sources):
        assert size.shape == (size.shape[0], tokens, 1)
        assert torch.equal(source.sum(dim=2, keepdim=True).float(), size)
        assert torch.equal(source.sum(dim=1), torch.ones_like(source[:, 0], dtype=torch.int64))
        prefix = len(adapter.prefix(handle.model))
        assert torch.equal(size[:, :prefix], torch.ones_like(size[:, :prefix]))
        assert torch.equal(
            source[:, :prefix, :prefix], torch.eye(prefix).bool().expand(len(size), -1, -1)
        )


def test_r_beyond_what_is_possible_merges_what_is(host):
    model, x = host
    handle = apply_tome(model, 1000)
    assert all(torch.isfinite(t).all() for t in run(model, x))
    prefix = len(find_adapter(handle.model).prefix(handle.model))
    assert all(tokens - prefix >= 1 for tokens in handle.info.tokens)


def test_remove_restores_bit_for_bit(host):
    model, x = host
    expected, before = run(model, x), snapshot(model)
    handle = apply_tome(model, 3)
    transformer = handle.model
    assert is_attached(transformer, "ToMe")
    path = locate(model)[0]
    assert isinstance(transformer, next(kind for name, _, kind, _ in before[0] if name == path))
    assert snapshot(model)[1] == before[1]
    run(model, x)
    handle.remove()
    assert snapshot(model) == before
    assert not is_attached(transformer)
    assert all(torch.equal(a, b) for a, b in zip(expected, run(model, x)))
    handle.remove()
    assert snapshot(model) == before


def test_keys_stay_and_load_strictly_both_ways(host):
    model, _ = host
    bare = copy.deepcopy(model)
    keys = list(model.state_dict())
    apply_tome(model, 3)
    assert list(model.state_dict()) == keys
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in bare.named_parameters()]
    assert [n for n, _ in model.named_modules()] == [n for n, _ in bare.named_modules()]
    model.load_state_dict(bare.state_dict(), strict=True)
    bare.load_state_dict(model.state_dict(), strict=True)


def test_a_deep_copy_has_a_life_of_its_own(host):
    model, x = host
    dense = run(model, x)
    handle = apply_tome(model, 3)
    merged = run(model, x)
    copied = copy.deepcopy(model)
    close(merged, run(copied, x), 0)
    handle.r = 0
    close(merged, run(copied, x), 0)
    close(dense, run(model, x), 1e-6)
    handle.remove()
    close(merged, run(copied, x), 0)
    detach(locate(copied)[1], "ToMe")
    assert all(torch.equal(a, b) for a, b in zip(dense, run(copied, x)))


def test_pickling_is_refused_in_a_sentence(host):
    model, _ = host
    handle = apply_tome(model, 3)
    with pytest.raises(RuntimeError, match="with ToMe on it cannot be pickled: save its state_d"):
        pickle.dumps(handle.model)


def test_autocast(host):
    model, x = host
    with torch.autocast("cpu", torch.bfloat16):
        expected = run(model, x)
    apply_tome(model, 3)
    with torch.autocast("cpu", torch.bfloat16):
        merged = run(model, x)
    assert [t.dtype for t in merged] == [t.dtype for t in expected]
    assert all(torch.isfinite(t).all() for t in merged)


def test_half_precision_model(host):
    model, x = host
    model.bfloat16()
    expected = run(model, x.bfloat16())
    apply_tome(model, 3)
    merged = run(model, x.bfloat16())
    assert [t.dtype for t in merged] == [t.dtype for t in expected]
    assert all(torch.isfinite(t).all() for t in merged)


def gradients(model, *batches):
    model.zero_grad()
    sum(t.float().square().sum() for x in batches for t in outputs(model(x))).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_reach_all_parameters(host):
    model, x = host
    dense = gradients(model, x)
    apply_tome(model, 3)
    merged = gradients(model, x)
    assert merged.keys() == dense.keys()
    for name, grad in merged.items():
        assert torch.isfinite(grad).all(), name
        assert grad.abs().sum() > 0 or dense[name].abs().sum() == 0, name


class Checkpointed(nn.Module):
    """A block that is computed again in the backward."""

    def __init__(self, block, reentrant):
        super().__init__()
        self.block, self.reentrant = block, reentrant
        self.window_size = getattr(block, "window_size", None)  # SAM-HQ asks its layers for it

    def forward(self, *args, **kwargs):
        if self.reentrant:
            return checkpoint(
                lambda x: self.block(x, *args[1:], **kwargs), args[0], use_reentrant=True
            )
        return checkpoint(self.block, *args, use_reentrant=False, **kwargs)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(host, reentrant):
    """Two passes wait for one backward, and each is recomputed with its own merges."""
    model, x = host
    x.requires_grad_()
    other = (x.detach().flip(0) * 0.7 + 0.1).requires_grad_()
    handle = apply_tome(model, [3, 1, 2])
    expected = gradients(model, x, other)
    blocks = {id(block) for block in find_adapter(handle.model).blocks(handle.model)}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in blocks:
                setattr(parent, name, Checkpointed(child, reentrant))
    recomputed = gradients(model, x, other)
    recomputed = {name.replace(".block.", "."): grad for name, grad in recomputed.items()}
    assert recomputed.keys() == expected.keys()
    for name, grad in expected.items():
        close([grad], [recomputed[name]], 1e-5)
