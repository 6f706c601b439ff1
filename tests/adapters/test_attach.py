"""Methods on instances: what is checked before anything changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmvitaccel.adapters import attach as attaching
from mmvitaccel.adapters.attach import (
    Swap,
    attach,
    detach,
    detach_all,
    is_attached,
    is_root,
    link,
    links,
)


class Block(nn.Module):
    """A host's block."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x, gain=1):
        return gain * self.linear(x)


def doubled(block, host, x, **kwargs):
    return 2 * host(x, **kwargs) + link(block).info * link(block).state["offset"]


def make_model():
    return nn.Sequential(Block(), Block())


def swaps(model):
    return [Swap(block, {"forward": doubled}, index) for index, block in enumerate(model)]


def test_overrides_see_the_host_the_state_and_their_own_info():
    model, x = make_model(), torch.randn(3, 2)
    expected = [2 * block(x, gain=3) + 10 * index for index, block in enumerate(model)]
    attach(model, "Double", swaps(model), dict(offset=10))
    for block, value in zip(model, expected):
        assert torch.equal(block(x, gain=3), value)
        assert isinstance(block, Block)
    assert type(model[0]) is type(model[1])
    assert link(model).members == (model, *model)


def test_an_override_of_an_inherited_method_and_a_base_without_one():
    model = make_model()
    with pytest.raises(
        TypeError, match="Double cannot be attached to Block: it has no method 'encode'"
    ):
        attach(model, "Double", [Swap(model[0], {"encode": doubled})], None)
    assert not is_attached(model)


def test_checks_come_before_changes():
    model = make_model()
    model[1].forward = lambda x: x
    with pytest.raises(TypeError, match="its 'forward' was replaced on the instance"):
        attach(model, "Double", swaps(model), dict(offset=0))
    assert [type(m) for m in model.modules()][:2] == [nn.Sequential, Block]
    assert not any(is_attached(m) for m in model.modules())


def test_scripted_modules_are_refused():
    model = nn.Sequential(torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(TypeError, match="it is scripted; give the eager model"):
        attach(model, "Double", [Swap(model[0], {"forward": doubled})], None)


def test_a_second_call_replaces_the_first():
    model, x = make_model(), torch.randn(1, 2)
    plain = model(x)
    attach(model, "Double", swaps(model), dict(offset=1))
    attach(model, "Double", swaps(model), dict(offset=5))
    assert link(model).state == dict(offset=5)
    detach(model, "Double")
    assert torch.equal(model(x), plain)
    assert type(model) is nn.Sequential


def test_detaching_what_is_not_attached_is_refused():
    model = make_model()
    with pytest.raises(RuntimeError, match="Double is not attached to this Sequential"):
        detach(model, "Double")
    attach(model, "Double", swaps(model), dict(offset=0))
    with pytest.raises(RuntimeError, match="Double is not attached to this Block"):
        detach(model[0], "Double")
    with pytest.raises(RuntimeError, match="Other is not attached to this Sequential"):
        detach(model, "Other")


def test_a_part_of_another_attachment_is_refused():
    model = make_model()
    attach(model, "Double", swaps(model), dict(offset=0))
    outer = nn.ModuleList([model])
    with pytest.raises(RuntimeError, match="Double cannot be attached to Block: Double is alre"):
        attach(outer, "Double", swaps(model), dict(offset=0))


def plus_one(block, host, x):
    return host(x) + link(block, "Inner").state


def twice(block, host, x):
    return host(x) * link(block, "Outer").state


@pytest.mark.parametrize("inner_first", [True, False])
def test_one_method_lies_inside_another_in_any_order(monkeypatch, inner_first):
    monkeypatch.setattr(attaching, "_INSIDE", (("Inner", "Outer"),))
    model, x = make_model(), torch.randn(3, 2)
    plain, block = model[0](x), model[0]
    puts = [("Inner", plus_one, 1), ("Outer", twice, 2)]
    for name, override, state in puts if inner_first else puts[::-1]:
        attach(model, name, [Swap(block, {"forward": override})], state)
    assert torch.equal(block(x), (plain + 1) * 2)
    assert [found.method for found in links(block)] == ["Inner", "Outer"]
    assert link(block).method == "Outer" and is_root(model) and not is_root(block)
    with pytest.raises(RuntimeError, match="Third cannot be attached to Sequential: Inner is al"):
        attach(model, "Third", [Swap(block, {"forward": twice})], None)
    twin = copy.deepcopy(model)
    assert torch.equal(twin[0](x), (plain + 1) * 2)
    detach_all(twin)
    assert type(twin[0]) is Block and not is_attached(twin)
    detach(model, "Inner")
    assert torch.equal(block(x), plain * 2)
    detach(model, "Outer")
    assert torch.equal(block(x), plain) and type(block) is Block and type(model) is nn.Sequential


class OwnCopy(nn.Module):
    """A host that copies itself in its own way."""

    def __deepcopy__(self, memo):
        new = OwnCopy()
        new.copied = True
        return new

    def forward(self, x):
        return x


def test_a_hosts_own_deepcopy_is_left_to_it():
    host = OwnCopy()
    attach(host, "Double", [Swap(host, {"forward": doubled}, 0)], dict(offset=0))
    assert copy.deepcopy(host).copied
