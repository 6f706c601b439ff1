from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.testing.baselines import openvino


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU()).eval().requires_grad_(False)


def test_openvino_computes_the_same(model):
    pytest.importorskip("openvino")
    x, other = torch.randn(2, 1, 3, 16, 16)
    run = openvino(model, x)
    (given,) = run(other)
    torch.testing.assert_close(given, model(other), rtol=1e-4, atol=1e-5)


def test_a_precision_that_would_silently_be_another_is_refused(model):
    ov = pytest.importorskip("openvino")
    from openvino.properties.hint import inference_precision

    if (
        ov.Core()
        .compile_model(
            ov.convert_model(model, example_input=torch.randn(1, 3, 16, 16)),
            "CPU",
            {inference_precision: ov.Type.bf16},
        )
        .get_property(inference_precision)
        == ov.Type.bf16
    ):
        pytest.skip("this processor computes in bfloat16")
    with pytest.raises(UserError, match="OpenVINO computes in f32 on this processor, not in bf16"):
        openvino(model, torch.randn(1, 3, 16, 16), "bf16")


def test_without_openvino_the_pip_install_is_named(model, monkeypatch):
    monkeypatch.setattr("mmvitaccel.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match="openvino is not installed: pip install"):
        openvino(model, torch.randn(1, 3, 16, 16))
