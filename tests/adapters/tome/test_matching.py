"""Matchings other than the paper's, on whole models."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.hosts.find import locate
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.tome.threshold import Threshold
from mmvitaccel.hooks import ToMeHook
from mmvitaccel.testing import models

timm = pytest.importorskip("timm", reason="timm is not installed")


def vit(seed=0):
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    size = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=5)
    model = VisionTransformer(**size)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.3 if parameter.ndim == 1 else 0.0, 0.15)
    return model.eval()


def vitdet(**kwargs):
    size = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4)
    windows = dict(window_size=5, window_block_indexes=(0, 2), pretrain_img_size=32)
    torch.manual_seed(0)
    model = models.vitdet(**{**size, **windows, **kwargs}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.15)
    return model


def images(count=3, size=(32, 32)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


ALL = [
    dict(type="Threshold", similarity=0.9),
    dict(type="Grid", grid_size=(4, 4)),
    dict(type="RandomMatching"),
    dict(type="RandomDrop"),
]


@pytest.mark.parametrize("matching", ALL, ids=lambda m: m["type"])
@pytest.mark.parametrize("build", [vit, vitdet])
def test_outputs_keep_their_shapes_and_gradients_flow(build, matching):
    model, x = build(), images(size=(32, 32) if build is vit else (48, 64))
    matching = {**matching} if build is vit else {"type": matching["type"]}
    dense = model(x)
    handle = apply_tome(model, 5, matching=matching)
    out = model(x)
    for a, b in zip(dense, out):
        assert a.shape == b.shape
        assert torch.isfinite(b).all()
        assert not torch.allclose(a, b, atol=1e-4)
    sum(t.sum() for t in out).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    handle.r = 0
    for a, b in zip(dense, model(x)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("proportional", [True, False])
def test_threshold_in_a_batch_is_threshold_alone(proportional):
    model, x = vit(), images(4)
    matching = dict(type="Threshold", similarity=0.95)
    handle = apply_tome(model, 1000, matching=matching, proportional_attention=proportional)
    with torch.no_grad():
        together = model.forward_features(x)
        tokens, sizes = handle.info.tokens, handle.info.sizes
        alone, lengths = [], []
        for image in x:
            alone.append(model.forward_features(image[None]))
            lengths.append(handle.info.tokens)
    assert len({tuple(length) for length in lengths}) > 1
    assert tokens == [max(block) for block in zip(*lengths)]
    for block, size in zip(zip(*lengths), sizes):
        assert (size > 0).sum(1).flatten().tolist() == list(block)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use_rel_pos", [True, False])
def test_threshold_in_windows_merges_each_window_on_its_own(use_rel_pos):
    model = vitdet(depth=1, window_size=4, window_block_indexes=(0,), use_rel_pos=use_rel_pos)
    x = images(2, (64, 64))
    matching = dict(type="Threshold", similarity=0.95)
    handle = apply_tome(model, 1000, matching=matching)
    with torch.no_grad():
        (together,) = model(x)
        lengths = (handle.info.sizes[0] > 0).sum(1).flatten().tolist()
        (alone,) = model(x[1:])
        assert (handle.info.sizes[0] > 0).sum(1).flatten().tolist() == lengths[4:]
    assert len(set(lengths)) > 1
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_grid_on_vitdet_takes_the_hosts_own_grid():
    model = vitdet()
    handle = apply_tome(model, 12, matching=dict(type="Grid"), trace_source=True)
    model(images(1, (48, 64)))
    # windows of 5 x 5, merged by 2 in each of 5 rows; 6 x 8 tokens, by 2 in each of 6 rows
    assert handle.info.tokens == [15, 36, 15]
    for source in handle.info.sources[1][0]:
        group = source.nonzero().flatten()
        assert len({place // 8 for place in group.tolist()}) == 1
        assert torch.equal(group, torch.arange(group[0], group[-1] + 1))


def test_grid_needs_to_be_told_where_the_host_does_not_say():
    model = vit()
    apply_tome(model, 4, matching=dict(type="Grid"))
    with pytest.raises(ValueError, match="Grid: this host does not provide its token grid"):
        model(images())


def test_a_seed_repeats_a_control_and_a_recomputed_block_draws_the_same():
    model, x = vit(), images()
    apply_tome(model, 3, matching=dict(type="RandomMatching"))
    torch.manual_seed(3)
    first = model(x)
    first.sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    model.set_grad_checkpointing()
    model.zero_grad()
    torch.manual_seed(3)
    model(x).sum().backward()
    for grad, parameter in zip(expected, model.parameters()):
        torch.testing.assert_close(parameter.grad, grad)


def test_the_wrapper_and_the_hook_take_a_config():
    backbone = dict(type="mmvitaccel.ViTDet", img_size=32, patch_size=8, embed_dim=16, depth=1)
    backbone.update(num_heads=2, window_size=0, window_block_indexes=())
    matching = dict(type="Threshold", similarity=0.25)
    cfg = Config(dict(model=dict(type="mmvitaccel.ToMe", matching=matching, backbone=backbone)))
    wrapped = MODELS.build(cfg.model)
    hooked = MODELS.build(backbone)
    ToMeHook(matching=cfg.model.matching).attach(hooked)
    for model in (wrapped, hooked):
        matcher = link(locate(model)[1]).state.options.matching
        assert isinstance(matcher, Threshold)
        assert matcher.similarity == 0.25


def test_the_similarity_of_the_default_is_an_argument():
    model = vit()
    apply_tome(model, 4, similarity="dot")
    assert link(model).state.options.matching.similarity == "dot"
    with pytest.raises(ValueError, match="similarity='l2' must be one of cosine, dot"):
        apply_tome(vit(), 4, similarity="l2")
    with pytest.raises(
        ValueError, match="similarity='dot' is of the paper's matching, and matchin"
    ):
        apply_tome(vit(), 4, similarity="dot", matching=dict(type="Grid"))


@pytest.mark.parametrize(
    "way",
    [
        "trace",
        "onnx",
        pytest.param(
            "export",
            marks=pytest.mark.skipif(
                not hasattr(torch.compiler, "is_exporting"), reason="torch 2.7 tells an export"
            ),
        ),
    ],
)
def test_a_number_of_merges_that_depends_on_the_picture_is_not_exported(way, tmp_path):
    model, x = vit(), torch.randn(1, 3, 32, 32)
    apply_tome(model, 4, matching=dict(type="Threshold", similarity=0.1))
    export = {
        "trace": lambda: torch.jit.trace(model, x),
        "onnx": lambda: torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=False),
        "export": lambda: torch.export.export(model, (x,)),
    }[way]
    with torch.no_grad():
        model(x)
        with pytest.raises(RuntimeError, match="matching=Threshold cannot be exported"):
            export()
