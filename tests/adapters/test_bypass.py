"""Modules that a method does not call: hooks on them are refused, on all others they work."""

from __future__ import annotations

import copy
import functools
from itertools import chain

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.adapters.base import host_class, spec_of
from mmvitaccel.adapters.bypass import CHECKED_WHEN_COMPILING
from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.adapters.eventful.head import attach_head
from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.hosts.parts import HEADS
from mmvitaccel.adapters.parts import family_of
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.eventful.frame import Clips, Frame, streams
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.compiled import CompiledEfficientViT
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from mmvitaccel.testing.maps import rpn
from tests.adapters.conftest import HOSTS, scramble, timm_vit


def calls_of(model, blocks, x):
    """What each submodule of the blocks gives, by (block, name); a list for its calls."""
    seen, hooks = {}, []
    for index, block in enumerate(blocks):
        for name, module in block.named_modules():
            if name:

                def note(module, args, out, key=(index, name)):
                    seen.setdefault(key, []).append(out)

                hooks.append(module.register_forward_hook(note))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_each_record_names_what_is_bypassed_and_nothing_else(host, monkeypatch):
    model, x = host
    inner = locate(model)[1]
    adapter = find_adapter(inner)
    blocks = list(adapter.blocks(inner))
    dense = calls_of(model, blocks, x)
    apply_tome(model, 0)
    monkeypatch.setattr(link(inner).state.bypass, "check", lambda: None)
    ours = calls_of(model, blocks, x)
    named = {(i, n) for i, b in enumerate(blocks) for n in spec_of(b, adapter).bypassed}
    missing = dense.keys() - ours.keys()
    assert missing <= named, "dropped and not named"
    for index, name in named & dense.keys() & ours.keys():
        assert name in ("ffn",), (index, name)  # called with other arguments


def one_of_each(name):
    """Bypassed modules of a host's second block, by name."""
    model = scramble(HOSTS[name].build())
    model.eval()
    inner = locate(model)[1]
    adapter = find_adapter(inner)
    block = list(adapter.blocks(inner))[1]
    modules = dict(block.named_modules())
    return model, [modules[n] for n in spec_of(block, adapter).bypassed if n in modules]


def hook_forward(module):
    return module.register_forward_hook(lambda *_: None).remove


def hook_pre(module):
    return module.register_forward_pre_hook(lambda *_: None).remove


def hook_backward(module):
    return module.register_full_backward_hook(lambda *_: None).remove


def replace_forward(module):
    module.forward = lambda *args, **kwargs: args[0]
    return lambda: module.__dict__.pop("forward")


@pytest.mark.parametrize("put", [hook_forward, hook_pre, hook_backward, replace_forward])
@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
@pytest.mark.parametrize(
    "name", ["timm class token", "timm EVA", "mmpretrain class token", "mmvitaccel ViTDet"]
)
def test_refused_before_and_after(name, method, put):
    model, modules = one_of_each(name)
    x = torch.randn(1, *HOSTS[name].shape[1:])
    attach = (lambda: apply_tome(model, 2)) if method == "ToMe" else None
    attach = attach or (lambda: apply_eventful(model, TopK(4)))
    for module in modules:
        remove = put(module)
        with pytest.raises(
            RuntimeError, match=rf"{method}: '.*\.1\..*': it.* would have no effect"
        ):
            attach()
        assert not is_attached(locate(model)[1])
        remove()
        handle = attach()
        with torch.no_grad():
            model(x)
            remove = put(module)
            with pytest.raises(RuntimeError, match=rf"{method}: '.*\.1\..*': it.* would have no"):
                model(x)
            remove()
            model(x)
        handle.remove()


class Wrapper(nn.Module):
    """Doubles what a module gives and passes its attributes on, as adapters of LoRA's kind do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        return 2 * out if isinstance(out, torch.Tensor) else (2 * out[0], *out[1:])


def subclassed(module):
    """The same module, of a class of its own that doubles what it gives."""
    module = copy.deepcopy(module)
    module.__class__ = type("Own", (type(module),), dict(forward=lambda self, *a, **k: None))
    return module


def untouched(module):
    """The same module, of a class of its own that changes nothing it does."""
    module = copy.deepcopy(module)
    module.__class__ = type("Own", (type(module),), dict(extra_repr=lambda self: "mine"))
    return module


@pytest.mark.parametrize(
    "name",
    [
        "mmvitaccel ViViT", "mmvitaccel ViTDet", "mmaction2 VideoMAE", "mmcv layers",
        "mmpretrain class token", "mmpretrain ViTSAM", "mmpretrain EVA-02", "mmpretrain BEiT",
        "mmaction2 TimeSformer divided", "timm class token",
    ],
)  # fmt: skip
def test_wrappers_and_subclasses_that_are_there_first_are_refused(name):
    model, x = scramble(HOSTS[name].build()), torch.randn(HOSTS[name].shape)
    model.eval()
    inner = locate(model)[1]
    adapter = find_adapter(inner)
    block = adapter.blocks(inner)[1]
    with torch.no_grad():
        expected = model(x)
    for path in spec_of(block, adapter).bypassed:
        try:
            own = block.get_submodule(path)
        except AttributeError:
            continue
        above, _, child = path.rpartition(".")
        parent = block.get_submodule(above)
        for make in (Wrapper, subclassed):
            setattr(parent, child, make(own))
            with pytest.raises((RuntimeError, ValueError), match=r"Wrapper|Own"):
                apply_tome(model, r=0)
            assert not is_attached(inner)
        setattr(parent, child, untouched(own))
        handle = apply_tome(model, r=0)
        with torch.no_grad():
            for found, wanted in zip(flat(model(x)), flat(expected), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        handle.remove()
        setattr(parent, child, own)


@pytest.mark.parametrize("path", ["attn", ""])
@pytest.mark.parametrize("name", ["timm class token", "mmvitaccel ViViT", "mmpretrain class token"])
def test_a_patched_class_is_refused_before_and_after(name, path, monkeypatch):
    model, x = scramble(HOSTS[name].build()), torch.randn(HOSTS[name].shape)
    model.eval()
    inner = locate(model)[1]
    kind = type(find_adapter(inner).blocks(inner)[1].get_submodule(path))
    own = kind.forward

    def forward(self, x, *args, **kwargs):
        return 2 * own(self, x, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", forward)
        with pytest.raises(RuntimeError, match=r"ToMe: '.*\.0.*would have no effect"):
            apply_tome(model, r=0)
    apply_tome(model, r=0)
    with torch.no_grad():
        model(x)
        monkeypatch.setattr(kind, "forward", forward)
        with pytest.raises(RuntimeError, match=r"ToMe: '.*\.0.*would have no effect"):
            model(x)


def flat(out):
    return [out] if isinstance(out, torch.Tensor) else [t for part in out for t in flat(part)]


def test_a_wrapper_in_a_neck_is_refused_and_a_parametrization_honoured():
    neck = scramble(SimpleFPN(in_channels=16, out_channels=16)).eval()
    own, x = neck.simfp_4[1], torch.randn(1, 16, 8, 8)
    neck.simfp_4[1] = subclassed(own)
    with pytest.raises(RuntimeError, match=r"EventfulNeck: 'simfp_4\.1': its class \S*Own has m"):
        apply_eventful_neck(neck)
    neck.simfp_4[1] = own
    plain = neck(x)
    nn.utils.parametrize.register_parametrization(own, "weight", Rectified())
    expected = neck(x)
    assert not all(map(torch.equal, expected, plain))
    apply_eventful_neck(neck)
    torch.testing.assert_close(neck(x), expected)


class Rectified(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight.relu()


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_a_replaced_attention_or_block_is_refused(method):
    class Other(nn.Module):
        def forward(self, x, **kwargs):
            return x

    def wrapped(forward):
        return functools.wraps(forward)(lambda *args, **kwargs: forward(*args, **kwargs))

    model = scramble(timm_vit()).eval()
    apply_tome(model, 2) if method == "ToMe" else apply_eventful(model, TopK(4))
    x, own = torch.randn(1, 3, 32, 32), model.blocks[1].attn
    with torch.no_grad():
        model.blocks[1].attn = Other()
        with pytest.raises(RuntimeError, match=r"'blocks\.1\.attn': it was replaced by a .*Other"):
            model(x)
        model.blocks[1].attn = None
        with pytest.raises(RuntimeError, match=r"'blocks\.1\.attn': it was removed"):
            model(x)
        model.blocks[1].attn = copy.deepcopy(own)
        expected = model(x)
        model.blocks[1].attn = own
        model.blocks[1].forward = wrapped(model.blocks[1].forward)  # as mmengine's checkpointing
        assert torch.equal(model(x), expected)
        del model.blocks[1].forward
        model.blocks[1].forward = lambda x, **kwargs: x
        with pytest.raises(RuntimeError, match=r"'blocks\.1': its forward was replaced"):
            model(x)
        del model.blocks[1].forward
        assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize(
    ("name", "calls_another"),
    [
        ("timm class token", True),  # forward calls forward_features, where ToMe begins as well
        ("mmpretrain class token", False),
        ("mmvitaccel ViTDet", False),
    ],
)
def test_a_models_replaced_forward_is_honoured_or_refused(name, calls_another):
    model, x = scramble(HOSTS[name].build()), torch.randn(1, *HOSTS[name].shape[1:])
    model.eval()
    inner = locate(model)[1]
    handle = apply_tome(model, 2)

    def check_as_before():
        for found, wanted in zip(model(x), expected):
            torch.testing.assert_close(found, wanted)
        assert handle.info.tokens == tokens

    with torch.no_grad():
        expected, tokens = model(x), handle.info.tokens
        ours, hosts = inner.forward, type(inner).host_class.forward
        inner.forward = lambda *args, **kwargs: ours(*args, **kwargs)
        check_as_before()
        inner.forward = functools.partial(hosts, inner)
        if calls_another:
            check_as_before()
        else:
            refused = "ToMe: a block runs outside of a pass, and 'forward' of this .* was replaced"
            with pytest.raises(RuntimeError, match=refused):
                model(x)
        del inner.forward
        check_as_before()


def test_a_replaced_forward_that_runs_the_blocks_itself_is_refused():
    model, x = scramble(timm_vit()).eval(), torch.randn(1, 3, 32, 32)
    apply_tome(model, 2)
    assert model.blocks(model.patch_embed(x)).shape == (1, 16, 32)  # alone, a block is the host's
    model.forward = lambda x: model.blocks(model.patch_embed(x))
    with pytest.raises(RuntimeError, match="outside of a pass, and 'forward' of this VisionTransf"):
        model(x)


@pytest.mark.parametrize("part", ["neck", "head"])
def test_the_replaced_forward_of_a_neck_or_head_is_refused(part):
    torch.manual_seed(0)
    if part == "neck":
        module, x = SimpleFPN(in_channels=16, out_channels=8).eval(), torch.randn(1, 16, 4, 4)
        apply_eventful_neck(module)
    else:
        pytest.importorskip("mmdet")
        module, x = rpn(), [torch.randn(1, 8, 4, 4)]
        attach_head(module, family_of(module, HEADS)[0])
    expected, ours = list(chain.from_iterable(module(x))), module.forward
    assert link(module).state.latest
    name, plain = host_class(module).__name__, functools.partial(host_class(module).forward, module)
    for forward in (plain, lambda x: ours(x), lambda x: x):
        module.forward = forward
        with pytest.raises(RuntimeError, match=f"{name}': its forward was replaced on the"):
            module(x)
    module.train()
    assert module(x) is x
    module.eval()
    module.forward = functools.wraps(ours)(lambda x: ours(x))  # as mmengine's checkpointing
    for found, wanted in zip(chain.from_iterable(module(x)), expected):
        torch.testing.assert_close(found, wanted)


def test_frames_of_one_stream_that_come_past_the_forward_are_refused():
    model = scramble(HOSTS["mmvitaccel ViTDet"].build()).eval()
    x = torch.randn(2, *HOSTS["mmvitaccel ViTDet"].shape[1:])
    inner = locate(model)[1]
    handle = apply_eventful(model, TopK(3))

    def play():
        with streams(Clips([[Frame("a", 0), Frame("a", 1)]])):
            return model(x)

    play()
    assert [frame.first for frame in handle.frames] == [True, False]
    inner.forward = functools.partial(type(inner).host_class.forward, inner)
    with pytest.raises(RuntimeError, match="a batch of 2 holds several frames of one stream"):
        play()
    del inner.forward
    play()
    assert [frame.first for frame in handle.frames] == [True, False]


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("put", [hook_forward, hook_pre, hook_backward, replace_forward])
def test_what_a_compiled_model_would_drop_is_refused(put, fullgraph):
    if not CHECKED_WHEN_COMPILING:
        pytest.skip("torch.compile of this torch does not call a constant method with its object")
    model, x = scramble(timm_vit()).eval(), torch.randn(1, 3, 32, 32)
    apply_tome(model, 2)
    compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
    attention = model.blocks[1].attn
    with torch.no_grad():
        expected = model(x)
        remove = put(attention)  # before it is compiled
        with pytest.raises(RuntimeError, match=r"'blocks\.1\.attn': it"):
            compiled(x)
        remove()
        torch._dynamo.reset()
        torch.testing.assert_close(compiled(x), expected)
        remove = put(attention)  # and after
        if put is replace_forward:
            torch._dynamo.reset()  # as for any module that torch has compiled
        with pytest.raises(RuntimeError, match=r"'blocks\.1\.attn': it"):
            compiled(x)
        remove()
        torch._dynamo.reset()
        torch.testing.assert_close(compiled(x), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
@pytest.mark.parametrize("place", ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp", "mlp.fc2"])
def test_steering_on_called_modules_is_honoured(method, place):
    model = scramble(timm_vit()).eval()
    x = torch.randn(1, 3, 32, 32)

    def steer(module, args, out):
        return out + 0.5 * torch.linspace(-1, 1, out.shape[-1])

    with torch.no_grad():
        plain = model(x)
        module = model.blocks[1].get_submodule(place)
        hook = module.register_forward_hook(steer)
        steered = model(x)
        assert not torch.allclose(steered, plain, atol=1e-3)
        apply_tome(model, 0) if method == "ToMe" else apply_eventful(model, Always())
        for _ in range(3):
            torch.testing.assert_close(model(x), steered, atol=1e-5, rtol=1e-4)
        hook.remove()
        torch.testing.assert_close(model(x), plain, atol=1e-5, rtol=1e-4)


def test_grad_cam_on_a_block_with_tome():
    model, seen = scramble(timm_vit()).eval(), {}
    apply_tome(model, 2)
    model.blocks[1].register_forward_hook(lambda m, a, out: seen.update(out=out))
    model.blocks[1].register_full_backward_hook(lambda m, i, o: seen.update(grad=o[0]))
    model(torch.randn(1, 3, 32, 32))[0, 0].backward()
    assert seen["out"].shape == seen["grad"].shape == (1, 17 - 4, 32)
    assert seen["grad"].abs().sum() > 0


def test_copies_look_at_their_own_modules():
    model = scramble(timm_vit()).eval()
    apply_tome(model, 2)
    twin = copy.deepcopy(model)
    twin.blocks[0].attn.register_forward_hook(lambda *_: None)
    x = torch.randn(1, 3, 32, 32)
    model(x)
    with pytest.raises(RuntimeError, match=r"ToMe: 'blocks\.0\.attn': it has a forward hook"):
        twin(x)


def test_a_neck_and_its_last_convolutions():
    neck = scramble(SimpleFPN(in_channels=16, out_channels=16)).eval()
    x = torch.randn(1, 16, 8, 8)
    mix = neck.simfp_4[-1]
    hook = mix.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match=r"EventfulNeck: 'simfp_4\.1': it has a forward hook"):
        apply_eventful_neck(neck)
    hook.remove()
    neck.simfp_4[0].register_forward_hook(lambda m, a, out: out + 1)
    expected = neck(x)
    apply_eventful_neck(neck)
    for _ in range(2):
        for found, wanted in zip(neck(x), expected):
            torch.testing.assert_close(found, wanted)
    mix.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match=r"'simfp_4\.1': it has a forward pre-hook"):
        neck(x)


def test_hooks_on_what_is_compiled_are_refused():
    model = EfficientViT("m0").eval()
    model.stages[1].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"'blocks2' has a hook or a replaced forward"):
        CompiledEfficientViT(model)


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_global_hooks_are_refused_but_for_those_that_count(method):
    model, x = scramble(timm_vit()).eval(), torch.randn(1, 3, 32, 32)
    apply_tome(model, 2) if method == "ToMe" else apply_eventful(model, TopK(4))
    hook = register_module_forward_hook(lambda module, args, out: None)
    try:
        with pytest.raises(RuntimeError, match=f"{method}: a global module hook of '.*test_bypas"):
            model(x)
    finally:
        hook.remove()
    with MacsCounter(model) as counter, torch.no_grad():
        model(x)
    assert counter.report().total > 0


def test_backward_hooks_where_no_gradients_are():
    model, x = scramble(timm_vit()).eval(), torch.randn(1, 3, 32, 32)
    apply_eventful(model, TopK(4))
    model.blocks[1].register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="Block within its blocks has a backward hook"):
        model(x)
    with torch.no_grad():
        model(x)


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_other_blocks_are_refused_and_wrapped_ones_are_not(method):
    class Wrapper(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.inner = block

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    model, x = scramble(timm_vit()).eval(), torch.randn(1, 3, 32, 32)
    apply_tome(model, 2) if method == "ToMe" else apply_eventful(model, Always())
    with torch.no_grad():
        expected = model(x)
        own = model.blocks[1]
        model.blocks[1] = Wrapper(own)
        torch.testing.assert_close(model(x), expected)
        model.blocks[1] = timm_vit().blocks[1]
        with pytest.raises(RuntimeError, match=r"has other blocks than when .*3 then, 3 now"):
            model(x)
        model.blocks[1] = own
        del model.blocks[2]
        with pytest.raises(RuntimeError, match=r"\(3 then, 2 now\)"):
            model(x)


def test_a_hook_on_the_projection_of_windows_sees_tokens_alone_and_leaves_the_padding():
    model, x = scramble(HOSTS["mmvitaccel ViTDet"].build()).eval(), torch.randn(1, 3, 48, 64)
    shapes = []

    def steer(module, args, out):
        shapes.append(tuple(out.shape))
        return out + torch.linspace(-1, 1, out.shape[-1])

    model.blocks[0].attn.qkv.register_forward_hook(steer)
    with torch.no_grad():
        expected = model(x)
        handle = apply_tome(model, 0)
        for found, wanted in zip(model(x), expected):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        handle.remove()
        apply_eventful(model, Always())
        for _ in range(2):
            for found, wanted in zip(model(x), expected):
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert shapes == [(1, 6, 8, 96), *[(1, 48, 96)] * 3]
