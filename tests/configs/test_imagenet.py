"""EfficientViT as an image classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmvitaccel.conversion.convert import convert_weights, find_layout
from mmvitaccel.models.efficientvit.classifier import EfficientViTPooling

CONFIGS = Path(__file__).parents[2] / "configs" / "imagenet"
PARAMETERS = dict(
    m0=2_349_436, m1=2_980_560, m2=4_187_554, m3=6_900_722, m4=8_804_228, m5=12_473_772
)


def build(name):
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    cfg = Config.fromfile(CONFIGS / name)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameters_are_those_of_the_paper(arch):
    cfg, model = build(f"efficientvit_{arch}_8xb256-300e_in1k.py")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[arch]
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 2048
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 300


def test_a_classifier_computes_a_loss_and_scores():
    _, model = build("efficientvit_m0_8xb256-300e_in1k.py")
    from mmpretrain.structures import DataSample

    images = torch.rand(2, 3, 224, 224)
    samples = [DataSample().set_gt_label(label) for label in (3, 5)]
    loss = model.loss(images, samples)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    model.eval()
    assert model(images, mode="tensor").shape == (2, 1000)


def test_fine_tuning_has_the_classes_of_its_data():
    cfg, model = build("efficientvit_m4_1xb256-300e_cifar100.py")
    assert model.head.fc.weight.shape == (100, 384)
    assert cfg.train_dataloader.dataset.type == "CIFAR100"


def test_released_weights_load_into_a_classifier():
    """The names and shapes of Microsoft's M0, in the layout that its file has."""
    _, model = build("efficientvit_m0_8xb256-300e_in1k.py")
    released = {}
    for name, value in model.state_dict().items():
        name = name.replace("backbone.", "").replace("neck.bn.", "head.bn.")
        released[name.replace("head.fc.", "head.l.")] = torch.full_like(value, 2)
    layout = find_layout(released, "m0.pth")
    assert layout.name == "efficientvit-imagenet"
    weights, _ = convert_weights(released, layout, "m0.pth")
    model.load_state_dict(weights, strict=True)
    assert all((v == 2).all() for n, v in model.state_dict().items() if "bias_idxs" not in n)


def test_pooling_is_a_mean_and_a_norm():
    pooling = EfficientViTPooling(4).eval()
    pooling.bn.running_mean.copy_(torch.arange(4.0))
    x = torch.randn(2, 4, 3, 5)
    (out,) = pooling((None, x))
    expected = (x.flatten(2).mean(2) - torch.arange(4.0)) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(out, expected)
