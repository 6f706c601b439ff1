from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.runner import amp
from mmvitaccel.runner.amp import (
    BFloat16OptimWrapper,
    enable_amp,
    evaluate_in_float32_on_cpu,
    serve_amp_on_cpu,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.cls_head = nn.Linear(4, 2)

    def forward(self, x):
        feature = self.backbone(x)
        return feature, self.cls_head(feature)


def config(**wrapper):
    return Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), **wrapper)))


def test_forward_in_bfloat16_and_a_step_as_written_out():
    torch.manual_seed(0)
    model, x = Net(), torch.randn(3, 4)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with wrapper.optim_context(model):
        feature, scores = model(x)
        loss = scores.square().sum()
    assert (feature.dtype, scores.dtype) == (torch.bfloat16, torch.float32)
    assert not model.cls_head._forward_hooks
    assert model(x)[0].dtype == torch.float32

    before = [p.detach().clone() for p in model.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grads = torch.autograd.grad(model(x)[1].float().square().sum(), list(model.parameters()))
    wrapper.update_params(loss)
    for parameter, old, grad in zip(model.parameters(), before, grads):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * grad)


def test_amp_on_a_cpu(monkeypatch):
    monkeypatch.setattr(amp, "get_device", lambda: "cpu")
    cfg = config(clip_grad=dict(max_norm=1))
    enable_amp(cfg)
    serve_amp_on_cpu(cfg)
    assert cfg.optim_wrapper == dict(
        type="mmvitaccel.BFloat16OptimWrapper",
        optimizer=dict(type="SGD", lr=0.1),
        clip_grad=dict(max_norm=1),
    )
    plain = config(type="OptimWrapper")
    serve_amp_on_cpu(plain)
    assert plain.optim_wrapper.type == "OptimWrapper"


def test_amp_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(amp, "get_device", lambda: "cuda")
    cfg = config(type="OptimWrapper")
    enable_amp(cfg)
    serve_amp_on_cpu(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ("AmpOptimWrapper", "dynamic")
    kept = config(type="AmpOptimWrapper", loss_scale=512.0)
    enable_amp(kept)
    assert kept.optim_wrapper.loss_scale == 512.0


def test_amp_with_another_wrapper():
    with pytest.raises(UserError, match="the config's optim_wrapper is DeepSpeedOptimWrapper"):
        enable_amp(config(type="DeepSpeedOptimWrapper"))
    with pytest.raises(UserError, match="the config's optim_wrapper is None"):
        enable_amp(Config({}))


@pytest.mark.parametrize("dtype", ["int8", "bf16", 16])
def test_a_dtype_that_mixed_precision_does_not_have(monkeypatch, dtype):
    monkeypatch.setattr(amp, "get_device", lambda: "cpu")
    with pytest.raises(
        UserError, match=rf"^optim_wrapper\.dtype is {dtype!r}; give one of 'float16'"
    ):
        serve_amp_on_cpu(config(type="AmpOptimWrapper", dtype=dtype))
    serve_amp_on_cpu(config(type="AmpOptimWrapper", dtype="float16"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_evaluation_in_half_precision(monkeypatch, device):
    monkeypatch.setattr(amp, "get_device", lambda: device)
    cfg = Config(dict(val_cfg=dict(type="ValLoop"), test_cfg=dict(type="TestLoop", fp16=True)))
    evaluate_in_float32_on_cpu(cfg)
    assert cfg.test_cfg.fp16 == (device == "cuda")
    assert "fp16" not in cfg.val_cfg
    evaluate_in_float32_on_cpu(Config({}))
