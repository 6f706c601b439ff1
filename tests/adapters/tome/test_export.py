"""ToMe as an ONNX file, by both exporters, against torch in ONNX Runtime."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from mmvitaccel import apply_tome
from mmvitaccel.adapters.base import host_class
from mmvitaccel.models.vitdet.backbone import ViTDet

pytestmark = pytest.mark.extras("deploy", "onnx", "onnxruntime", "onnxscript")
SMALL = dict(img_size=48, embed_dim=32, depth=3, num_heads=2)
ONLY_ONE = torch.__version__ < "2.5"  # exporter, without an argument to choose
EXPORTERS = {
    "torchscript": dict(opset_version=17, **({} if ONLY_ONE else dict(dynamo=False))),
    "dynamo": dict(dynamo=True),
}
needs_dynamo = pytest.mark.skipif(torch.__version__ < "2.7", reason="the exporter of torch 2.7 on")
exporters = pytest.mark.parametrize(
    "exporter", ["torchscript", pytest.param("dynamo", marks=needs_dynamo)]
)


def timm_vit(name="vit_tiny_patch16_224", **kwargs):
    import timm

    return timm.create_model(name, **{**SMALL, "patch_size": 8, **kwargs})


def mmpretrain_vit():
    pytest.importorskip("mmpretrain", reason="mmpretrain is optional")
    from mmpretrain.models.backbones import VisionTransformer

    arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
    return VisionTransformer(arch, img_size=48, patch_size=8, out_type="featmap")


def mmaction_vit():
    pytest.importorskip("mmaction")
    from mmaction.models.backbones import VisionTransformer

    return VisionTransformer(
        img_size=32, patch_size=8, embed_dims=32, depth=3, num_heads=2, mlp_ratio=2, num_frames=4
    )


def vitdet():
    return ViTDet(
        img_size=48, patch_size=8, embed_dim=32, depth=3, num_heads=2, window_size=4,
        window_block_indexes=(0, 2), pretrain_img_size=32,
    )  # fmt: skip


FAMILIES = {
    "timm ViT": timm_vit,
    "timm DeiT, distilled": lambda: timm_vit("deit_tiny_distilled_patch16_224"),
    "timm ViT, registers": lambda: timm_vit(reg_tokens=3, class_token=False, global_pool="avg"),
    "mmpretrain ViT": mmpretrain_vit,
    "mmaction2 ViT": mmaction_vit,
    "ViTDet": vitdet,
}


def lively(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


def images_for(model: nn.Module) -> torch.Tensor:
    clip = "mmaction" in host_class(model).__module__
    shape = (2, 3, 4, 32, 32) if clip else (2, 3, 48, 48)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def run_exported(model: nn.Module, x: torch.Tensor, path, exporter: str) -> list[torch.Tensor]:
    import onnxruntime

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(path), input_names=["x"], **EXPORTERS[exporter])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(out) for out in session.run(None, {"x": x.numpy()})]


def check(model: nn.Module, path, exporter: str) -> None:
    x = images_for(lively(model))
    with torch.no_grad():
        expected = model(x)
    given = run_exported(model, x, path, exporter)
    expected = [expected] if torch.is_tensor(expected) else list(expected)
    assert len(given) == len(expected)
    for a, b in zip(given, expected):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@exporters
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, exporter, tmp_path):
    model = FAMILIES[family]()
    apply_tome(model, 5)
    check(model, tmp_path / "m.onnx", exporter)


@pytest.mark.parametrize(
    "options",
    [
        dict(r=[0, 9, 2]),
        dict(r=0.25),
        dict(r=(6, -1.0)),
        dict(r=100),
        dict(r=4, proportional_attention=False),
        dict(r=4, reduction="prune"),
        dict(r=4, metric="tokens", matching=dict(type="Bipartite", similarity="dot")),
    ],
    ids=str,
)
def test_options(options, tmp_path):
    model = timm_vit()
    apply_tome(model, **options)
    check(model, tmp_path / "m.onnx", "torchscript")


def test_equal_similarities_merge_in_the_order_of_positions(tmp_path):
    """An image of one colour: which tokens merge is a matter of ties alone."""
    model = timm_vit(pos_embed="none", class_token=False, global_pool="avg")
    apply_tome(model, 5)
    x = torch.ones(1, 3, 48, 48)
    x[:, :, 40:] = 2  # the last row of patches differs
    lively(model)
    with torch.no_grad():
        expected = model(x)
    (given,) = run_exported(model, x, tmp_path / "m.onnx", "torchscript")
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_without_tome_the_file_is_another(tmp_path):
    """The comparison sees whether tokens merge."""
    model, x = lively(timm_vit()), images_for(nn.Identity())
    (plain,) = run_exported(model, x, tmp_path / "m.onnx", "torchscript")
    apply_tome(model, 9)
    with torch.no_grad():
        assert (model(x) - plain).abs().max() > 1e-3 * plain.abs().max()
