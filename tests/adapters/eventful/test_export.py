"""Methods that remember frames say why they are not exported, to every exporter."""

from __future__ import annotations

import warnings

import pytest
import torch

from mmvitaccel import apply_eventful, apply_tome
from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN

pytestmark = pytest.mark.extras("deploy", "onnx", "onnxscript")
old = pytest.mark.skipif(torch.__version__ < "2.7", reason="the exporter of torch 2.7 on")


def onnx(**kwargs):
    def export(model, x, path):
        torch.onnx.export(model, (x,), str(path), **kwargs)

    return export


EXPORTERS = {
    "trace": lambda model, x, path: torch.jit.trace(model, x),
    "onnx, torchscript": onnx(**({} if torch.__version__ < "2.5" else dict(dynamo=False))),
    "onnx, dynamo": pytest.param(onnx(dynamo=True), marks=old),
    "torch.export": pytest.param(
        lambda model, x, path: torch.export.export(model, (x,)), marks=old
    ),
}


def eventful_vitdet():
    model = ViTDet(
        img_size=48, patch_size=8, embed_dim=32, depth=2, num_heads=2, window_size=4,
        window_block_indexes=(0,), pretrain_img_size=32,
    ).eval()  # fmt: skip
    apply_eventful(model, TopK(4))
    return model, torch.randn(1, 3, 48, 48)


def eventful_neck():
    model = SimpleFPN(
        in_channels=8, out_channels=8, patch_size=8, num_outs=2, scale_factors=(1.0, 0.5)
    ).eval()
    apply_eventful_neck(model)
    return model, torch.randn(1, 8, 6, 6)


def all_text(error: BaseException | None) -> str:
    """An error's message with those of its causes."""
    return "" if error is None else f"{error}\n{all_text(error.__cause__ or error.__context__)}"


@pytest.mark.parametrize("export", EXPORTERS.values(), ids=EXPORTERS)
@pytest.mark.parametrize(
    ("build", "name"), [(eventful_vitdet, "Eventful"), (eventful_neck, "EventfulNeck")]
)
def test_no_exporter_gets_a_graph(build, name, export, tmp_path):
    model, x = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception) as caught, torch.no_grad():
            export(model, x, tmp_path / "m.onnx")
    assert f"{name} cannot be exported: its computation depends on previous frames" in all_text(
        caught.value
    )
    with torch.no_grad():
        model(x)  # it works on


def test_scripting_is_refused():
    model, _ = eventful_vitdet()
    with pytest.raises(RuntimeError, match="A ViTDet with Eventful on it cannot be scripted"):
        torch.jit.script(model)
    with pytest.raises(RuntimeError, match="with Eventful on it cannot be scripted"):
        torch.jit.script(torch.nn.Sequential(model))
    plain, _ = eventful_vitdet()
    EventfulHandle(plain).remove()
    apply_tome(plain, 4)
    with pytest.raises(RuntimeError, match="A ViTDet with ToMe on it cannot be scripted"):
        torch.jit.script(plain)
