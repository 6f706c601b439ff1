"""EfficientViT as compiled steps against the same model by torch's operators."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mmvitaccel.core.kernels import operators
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.models.efficientvit import compiled as efficientvit_compiled
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.compiled import CompiledEfficientViT
from mmvitaccel.testing.models import efficientvit


def folded(arch="m0", **kwargs):
    torch.manual_seed(0)
    return efficientvit(arch, **kwargs)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for out, wanted in zip(found, expected):
        assert (out - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("arch", ["m0", "m1", "m2", "m3", "m4", "m5"])
@torch.no_grad()
def test_every_model_at_the_size_of_imagenet(kernel, arch):
    model = folded(arch, window_size=(7, 7, 4))
    x = torch.randn(2, 3, 224, 224)
    assert_same(CompiledEfficientViT(model)(x), model(x))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [(1, 17, 33), (3, 200, 264), (1, 64, 500), (2, 1, 1)])
@torch.no_grad()
def test_any_size_with_windows_that_are_filled_up(kernel, size, threads):
    batch, height, width = size
    model, before = folded(), torch.get_num_threads()
    x = torch.randn(batch, 3, height, width)
    torch.set_num_threads(threads)
    try:
        assert_same(CompiledEfficientViT(model)(x), model(x))
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_sizes_in_turn_and_outputs_that_are_the_callers(kernel, monkeypatch):
    monkeypatch.setattr(efficientvit_compiled, "_PLANS_KEPT", 2)
    model = folded(out_indices=(1, 2))
    fast = CompiledEfficientViT(model)
    images = [torch.randn(1, 3, *size) for size in ((64, 64), (96, 64), (64, 128), (64, 64))]
    outs = [fast(x) for x in images]
    for x, out in zip(images, outs):
        assert_same(out, model(x))
    assert len(fast._plans) == 2


@torch.no_grad()
def test_the_model_stays_as_it_is_and_its_changes_are_not_seen(kernel):
    torch.manual_seed(0)
    model, x = EfficientViT("m0").train(), torch.randn(2, 3, 64, 64)
    model(x)  # for statistics
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = CompiledEfficientViT(model)
    assert model.training and not model.deploy and not list(fast.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    expected = model.eval()(x)
    assert_same(fast(x), expected)
    for value in model.parameters():
        value.add_(1.0)
    assert_same(fast(x), expected)
    assert_same(fast(x[:1]), [out[:1] for out in expected])  # a size that it has not seen


@torch.no_grad()
def test_copies_and_pickles_are_whole(kernel):
    model, x = folded(), torch.randn(1, 3, 64, 64)
    fast = CompiledEfficientViT(model)
    expected = fast(x)
    others = copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))
    del fast
    for other in others:
        assert_same(other(x), expected)


@torch.no_grad()
def test_threads_that_call_it_at_once_do_not_meet(kernel):
    fast = CompiledEfficientViT(folded())
    images = torch.randn(8, 1, 3, 64, 64)
    expected = [fast(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for out, wanted in zip(pool.map(fast, images), expected):
                assert_same(out, wanted)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@torch.no_grad()
def test_what_is_not_a_number_is_not_hidden(kernel, value):
    x = torch.randn(2, 3, 64, 64)
    x[0, 1, 30, 30] = value
    for out in CompiledEfficientViT(folded())(x):
        assert not out[0].isfinite().all()
        assert out[1].isfinite().all()


@torch.no_grad()
def test_images_that_lie_by_channel_are_the_same(kernel):
    fast, x = CompiledEfficientViT(folded()), torch.randn(2, 3, 64, 96)
    by_channel = fast(x.contiguous(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(by_channel, fast(x)))


@torch.no_grad()
def test_multiply_adds_are_those_that_run(kernel):
    model = folded("m2", window_size=(7, 7, 4))
    counts = {}
    for side in (224, 200):
        for name, run in (("model", model), ("compiled", CompiledEfficientViT(model))):
            with MacsCounter() as counter:
                run(torch.randn(2, 3, side, side))
            counts[name, side] = counter.report().total
            assert not counter.report().uncounted
    assert counts["model", 224] == counts["compiled", 224] > 0
    # What fills up windows is not projected, since nobody reads it
    assert 0.9 * counts["model", 200] < counts["compiled", 200] < counts["model", 200]


def test_what_it_cannot_take_is_refused_in_a_sentence(kernel, monkeypatch):
    with pytest.raises(ValueError, match=r"in torch.float16 on cpu; it must be in float32 on a C"):
        CompiledEfficientViT(folded().half())
    fast = CompiledEfficientViT(folded())
    with pytest.raises(ValueError, match=r"the input is \(1, 4, 8, 8\), torch.float32 on cpu; it"):
        fast(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"the input is \(0, 3, 8, 8\), torch.float32 on cpu; it"):
        fast(torch.zeros(0, 3, 8, 8))
    with pytest.raises(
        TypeError, match="the model is a Linear; give an EfficientViT, such as a det"
    ):
        CompiledEfficientViT(nn.Linear(2, 2))
    monkeypatch.setattr(efficientvit_compiled, "kernels", lambda: None)
    with pytest.raises(RuntimeError, match="CompiledEfficientViT needs compiled kernels: "):
        CompiledEfficientViT(folded())


@pytest.mark.parametrize(
    ("dims", "heads", "named"),
    [
        (72, 3, "'blocks1.0.dw0.m' has 72 channels"),
        (80, 4, "'blocks1.0.mixer.m.attn' has 20 chann"),
    ],
)
def test_channels_that_do_not_fill_vectors_are_refused(kernel, dims, heads, named):
    if operators.kernels().map_lanes() != 16:
        pytest.skip("vectors of 8 numbers on this machine: the names are those of 16")
    arch = dict(embed_dims=(dims,), depths=(1,), num_heads=(heads,), kernels=(3,) * heads)
    with pytest.raises(ValueError, match=f"{named}.*; this machine needs multiples of 16"):
        CompiledEfficientViT(folded(arch, out_indices=(0,), window_size=7))


class Lora(nn.Conv2d):
    """A convolution with something beside its weight, as LoRA has."""

    def forward(self, x):
        return super().forward(x) + 1


def test_a_subclass_with_a_forward_of_its_own_is_refused(kernel):
    for path in ("patch_embed.0.c", "blocks2.1.se.fc1"):
        model = EfficientViT("m0").eval()
        model.get_submodule(path).__class__ = Lora
        with pytest.raises(
            ValueError, match=rf"'{path}' is a \S*\.Lora, which would have no effect"
        ):
            CompiledEfficientViT(model)


def test_sums_that_are_too_long_are_refused(kernel):
    arch = dict(embed_dims=(1600,), depths=(1,), num_heads=(100,), kernels=(3,) * 100)
    with pytest.raises(
        ValueError, match=r"'patch_embed.2.c' sums 1800 products .*; the maximum is 1552"
    ):
        CompiledEfficientViT(folded(arch, out_indices=(0,), window_size=7))


NOT_EXPORTED = "CompiledEfficientViT cannot be exported: its steps are compiled for this CPU"


@pytest.mark.parametrize("make", [torch.jit.trace, lambda model, x: torch.jit.script(model)])
def test_it_is_not_traced(make):
    """Its steps are no operators of torch: a graph would hold numbers of one image."""
    model, x = CompiledEfficientViT(EfficientViT("m0").eval()), torch.randn(1, 3, 64, 64)
    with pytest.raises(RuntimeError, match=NOT_EXPORTED):
        make(model, x)


@pytest.mark.extras("deploy", "onnx", "onnxscript")
@pytest.mark.parametrize("dynamo", [False, True])
def test_no_exporter_gets_a_graph(dynamo, tmp_path):
    if dynamo and torch.__version__ < "2.7":
        pytest.skip("the exporter of torch 2.7 on")
    model, x = CompiledEfficientViT(EfficientViT("m0").eval()), torch.randn(1, 3, 64, 64)
    chosen = {} if torch.__version__ < "2.5" else dict(dynamo=dynamo)
    with pytest.raises(Exception, match=NOT_EXPORTED):
        torch.onnx.export(model, (x,), str(tmp_path / "m.onnx"), **chosen)
