"""The backbone against the published figures, timm's implementation and its own options."""

from __future__ import annotations

import copy
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from mmvitaccel.models.efficientvit.arch import ARCHS
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.weights import from_timm_key
from mmvitaccel.registry import MODELS

# Table 1 of the paper and the released checkpoints: parameters, millions of multiply-adds at 224
PUBLISHED = {
    "m0": (2_349_436, 79.19),
    "m1": (2_980_560, 167.05),
    "m2": (4_187_554, 201.04),
    "m3": (6_900_722, 262.66),
    "m4": (8_804_228, 299.31),
    "m5": (12_473_772, 521.58),
}
IMAGENET_WINDOWS = (7, 7, 4)
NARROW = dict(embed_dims=(16, 24, 32), depths=(1, 2, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))


@pytest.fixture(autouse=True)
def _seeded(one_thread):
    torch.manual_seed(0)


@pytest.fixture
def narrow(randomise):
    def build(seed: int = 0, **kwargs) -> EfficientViT:
        return randomise(EfficientViT(arch=NARROW, **kwargs), seed)

    return build


def assert_same(outs, expected, tolerance: float = 0.0) -> None:
    assert len(outs) == len(expected)
    for out, other in zip(outs, expected):
        torch.testing.assert_close(
            out.float(), other.float(), rtol=0, atol=tolerance * other.abs().max().item()
        )


def differs(outs, others) -> bool:
    return any(not torch.allclose(out, other, atol=1e-3) for out, other in zip(outs, others))


@pytest.mark.parametrize("arch", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(arch):
    model = EfficientViT(arch, window_size=IMAGENET_WINDOWS).eval()
    width = model.arch["embed_dims"][-1]
    # the published classifier: BatchNorm1d (2 * width) and Linear (1000 * width + 1000)
    head = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 1000)).eval()
    parameters = sum(p.numel() for m in (model, head) for p in m.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        head(model(torch.rand(1, 3, 224, 224))[-1].mean((2, 3)))
    published, megamacs = PUBLISHED[arch]
    assert parameters == published
    assert counter.get_total_flops() / 2e6 == pytest.approx(megamacs, rel=1e-3)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_features_are_those_of_timm_both_ways(arch, randomise):
    theirs = randomise(timm.create_model(f"efficientvit_{arch}", num_classes=0)).eval()
    ours = EfficientViT(arch, window_size=IMAGENET_WINDOWS).eval()
    images = torch.rand(1, 3, 224, 224)

    ours.load_state_dict({from_timm_key(k): v for k, v in theirs.state_dict().items()})
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, intermediates_only=True)
        assert [out.std().item() > 0.1 for out in expected] == [True] * 3
        assert_same(ours(images), expected, 1e-4)

    names = {from_timm_key(k): k for k in theirs.state_dict()}
    randomise(ours, seed=1)
    back = {names[k]: v for k, v in ours.state_dict().items() if "attention_bias_idxs" not in k}
    theirs.load_state_dict(back)
    with torch.no_grad():
        outs = ours(images)
        theirs = theirs.train().eval()  # drops timm's cached biases
        assert_same(outs, theirs.forward_intermediates(images, intermediates_only=True), 1e-4)
        assert differs(outs, expected)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (50, 400), (112, 112), (230, 97)])
def test_any_size_eager_and_traced(narrow, size):
    model = narrow().eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        outs = model(images)
        shapes = [
            (2, width, -(-size[0] // stride), -(-size[1] // stride))
            for width, stride in zip(NARROW["embed_dims"], (16, 32, 64))
        ]
        assert [tuple(out.shape) for out in outs] == shapes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            traced = torch.jit.trace(model, images, check_trace=False)
        other = torch.rand(3, 3, *size)
        assert_same(traced(other), model(other), 1e-6)
        assert_same(model(images.to(memory_format=torch.channels_last)), outs, 1e-5)
    # nothing leaks from one image to the other
    with torch.no_grad():
        assert_same([out[:1] for out in outs], model(images[:1]), 1e-5)


def test_compiles_into_one_graph(randomise):
    arch = dict(embed_dims=(16,), depths=(1,), num_heads=(2,), kernels=(3, 3))

    def build(seed: int) -> EfficientViT:
        model = EfficientViT(arch, out_indices=(0,), window_size=(7,))
        return randomise(model, seed).eval()

    model = build(0)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    for size in ((40, 60), (130, 130)):
        images = torch.rand(1, 3, *size)
        with torch.no_grad():
            assert_same(compiled(images), model(images), 1e-6)
    # and with new weights, without compiling again
    model.load_state_dict(build(1).state_dict())
    with torch.no_grad():
        assert_same(compiled(images), model(images), 1e-6)


@pytest.mark.parametrize("loading_mode", [True, False])
def test_new_weights_count_at_once_in_every_mode(narrow, loading_mode):
    source, model = narrow(seed=1).eval(), narrow(seed=2).eval()
    images = torch.rand(1, 3, 100, 100)
    with torch.no_grad():
        before = model(images)
        model.train(loading_mode).load_state_dict(source.state_dict())
        # no change of mode in between when loaded in eval mode
        outs = model.eval()(images) if loading_mode else model(images)
        assert_same(outs, source(images))
        assert differs(outs, before)
        biases = {k: v + 1 for k, v in source.state_dict().items() if "attention_biases" in k}
        biases = {k: v * torch.linspace(0, 2, v.shape[1]) for k, v in biases.items()}
        model.load_state_dict(biases, strict=False)
        assert differs(model(images), outs)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.08), (torch.float16, 0.01)])
def test_half_precision_follows_float(narrow, dtype, tolerance):
    if dtype is torch.float16:
        try:
            nn.Conv2d(1, 1, 1).half()(torch.ones(1, 1, 1, 1).half())
        except RuntimeError as error:
            pytest.skip(f"this torch has no half convolution on a CPU: {error}")
    model, images = narrow().eval(), torch.rand(1, 3, 100, 180)
    with torch.no_grad():
        expected = model(images)  # before the cast, where a cache would be filled
        half = copy.deepcopy(model).to(dtype)
        outs = half(images.to(dtype))
        assert all(out.dtype == dtype for out in outs)
        assert_same(outs, expected, tolerance)
        half.switch_to_deploy()
        assert_same(half(images.to(dtype)), expected, tolerance)


def test_autocast_trains_in_bfloat16(narrow):
    model, images = narrow().train(), torch.rand(2, 3, 100, 100)
    with torch.autocast("cpu", torch.bfloat16):
        outs = model(images)
    sum(out.float().square().mean() for out in outs).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_modes_return_the_model_and_every_parameter_learns(narrow):
    model = narrow(drop_path_rate=0.0)
    assert model.eval() is model and model.train() is model
    outs = model(torch.rand(2, 3, 130, 100))
    sum(out.square().mean() for out in outs).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []


def test_norm_eval_keeps_statistics(narrow):
    images = torch.rand(2, 3, 64, 64)
    for norm_eval in (False, True):
        model = narrow(norm_eval=norm_eval).train()
        before = copy.deepcopy(model.state_dict())
        model(images)
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert all(m.training != norm_eval for m in model.modules() if isinstance(m, _BatchNorm))
        assert bool(changed) != norm_eval


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 3])
def test_frozen_stages_stay_as_they_are(narrow, frozen_stages):
    model = narrow(frozen_stages=frozen_stages, drop_path_rate=0.2).train()
    parts = ["patch_embed", "blocks1", "blocks2", "blocks3"]
    frozen = parts[: frozen_stages + 1]
    before = copy.deepcopy(model.state_dict())
    outs = model(torch.rand(2, 3, 64, 64))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in frozen)
    if frozen_stages < 3:
        outs[-1].sum().backward()
    changed = {k.split(".")[0] for k, v in model.state_dict().items() if (v != before[k]).any()}
    assert changed == set(parts) - set(frozen)


@pytest.mark.parametrize("out_indices", [(0,), (1,), (0, 2)])
def test_out_indices_choose_and_stop(narrow, out_indices):
    whole = narrow().eval()
    model = EfficientViT(arch=NARROW, out_indices=out_indices).eval()
    own = {k: v for k, v in whole.state_dict().items() if k in model.state_dict()}
    model.load_state_dict(own)
    images = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        assert_same(model(images), [whole(images)[i] for i in out_indices])
    assert hasattr(model, "blocks3") == (2 in out_indices)


def test_drop_path_leaves_branches_out_of_some_images():
    model = EfficientViT(arch=NARROW, drop_path_rate=0.3)
    blocks = [model.blocks1[0], model.blocks2[-2], model.blocks2[-1], model.blocks3[-1]]
    for block, rate in zip(blocks, (0.0, 0.1, 0.2, 0.3)):
        assert [part.drop_path for part in block.children()] == pytest.approx([rate] * 5)

    residual = blocks[0].dw0
    residual.drop_path, residual.m = 0.25, nn.Identity()
    x = torch.ones(4000, 1, 1, 1)
    out = residual.train()(x).flatten()
    assert sorted(set(out.tolist())) == pytest.approx([1.0, 1 + 1 / 0.75])
    assert (out == 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(residual.eval()(x), 2 * x)


def test_checkpointing_changes_nothing_but_memory(narrow):
    images, results = torch.rand(2, 3, 130, 100), []
    for with_cp in (False, True):
        model = narrow(with_cp=with_cp, drop_path_rate=0.3).train()
        torch.manual_seed(3)
        outs = model(images)
        sum(out.square().mean() for out in outs).backward()
        grads = {k: p.grad for k, p in model.named_parameters()}
        results.append((outs, grads, model.state_dict()))
    (outs, grads, state), (other_outs, other_grads, other_state) = results
    assert_same(other_outs, outs)
    for key, grad in grads.items():
        torch.testing.assert_close(other_grads[key], grad)
    # BatchNorm counted the batch once
    for key, value in state.items():
        torch.testing.assert_close(other_state[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["m0", "m4"])
def test_switch_to_deploy_agrees_and_folds_all(arch, randomise):
    model = randomise(EfficientViT(arch)).eval()
    images = torch.rand(1, 3, 256, 200)
    with torch.no_grad():
        expected = model(images)
        parameters = sum(p.numel() for p in model.parameters())
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        channels = sum(m.num_features for m in norms)
        model.switch_to_deploy()
        assert not any(isinstance(m, _BatchNorm) for m in model.modules())
        # two parameters a channel become one
        assert sum(p.numel() for p in model.parameters()) == parameters - channels
        assert_same(model(images), expected, 1e-4)
        folded = copy.deepcopy(model.state_dict())
        model.switch_to_deploy()
    assert model.deploy and list(model.state_dict()) == list(folded)
    assert all(torch.equal(v, folded[k]) for k, v in model.state_dict().items())


def test_deploy_model_takes_weights_of_either_kind(narrow):
    trained = narrow(seed=4).eval()
    images = torch.rand(1, 3, 100, 100)
    unfolded = copy.deepcopy(trained.state_dict())
    with torch.no_grad():
        expected = trained(images)
        model = EfficientViT(arch=NARROW, deploy=True).eval()
        assert model.deploy and not any(isinstance(m, _BatchNorm) for m in model.modules())
        before = {k: v.clone() for k, v in unfolded.items()}
        model.load_state_dict(unfolded)
        assert_same(model(images), expected, 1e-4)
        assert all(torch.equal(unfolded[k], v) for k, v in before.items())
        again = EfficientViT(arch=NARROW, deploy=True).eval()
        again.load_state_dict(model.state_dict())
        assert_same(again(images), model(images))
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"'patch_embed.0.c' have a folded BatchNorm"):
            EfficientViT(arch=NARROW).load_state_dict(model.state_dict(), strict=strict)


def test_registered_under_its_scope_and_arch_dict_equals_name():
    model = MODELS.build(dict(type="mmvitaccel.EfficientViT", arch="m1"))
    other = EfficientViT(arch={k: list(v) for k, v in ARCHS["m1"].items()}, window_size=7)
    assert model.name == other.name == "EfficientViT-M1"
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert shapes == {k: v.shape for k, v in other.state_dict().items()}


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(arch="m6"), "arch='m6' is unknown; use one of m0, m1, m2, m3, m4, m5"),
        (dict(arch=dict(embed_dims=(8,))), "has the fields embed_dims; it needs embed_dims, dep"),
        (dict(arch={**NARROW, "depths": (1, 2)}), r"3 embed_dims but depths=\(1, 2\)"),
        (dict(arch={**NARROW, "depths": (1, 0, 1)}), r"depths=\(1, 0, 1\); give numbers of at"),
        (dict(arch={**NARROW, "num_heads": (3, 3, 2)}), "a stage of 16 channels and 3 heads"),
        (dict(arch={**NARROW, "kernels": (5, 3)}), r"kernels=\(5, 3\); give an odd one .* 3 heads"),
        (dict(arch={**NARROW, "kernels": (5, 4, 3)}), r"kernels=\(5, 4, 3\)"),
        (dict(out_indices=(0, 3)), r"out_indices=\(0, 3\) must name stages from 0 to 2"),
        (dict(out_indices=()), r"out_indices=\(\) must name stages"),
        (dict(out_indices=(2, 0)), r"out_indices=\(2, 0\) must be in ascending order"),
        (dict(window_size=(7, 7)), r"window_size=\(7, 7\) must be 3 numbers"),
        (dict(window_size=(7, 0, 7)), r"window_size=\(7, 0, 7\) must be 3 numbers of at least 1"),
        (dict(frozen_stages=4), r"frozen_stages=4 must be .* at least -1 and at most 3"),
        (dict(drop_path_rate=1.0), r"drop_path_rate=1\.0 must be at least 0 and below 1"),
    ],
)
def test_arguments_out_of_range_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EfficientViT(**kwargs)


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (3, 64, 64)])
def test_wrong_input_is_named(narrow, shape):
    with pytest.raises(ValueError, match=r"input is \(.*64, 64\); it must be images"):
        narrow()(torch.rand(shape))
