from __future__ import annotations

import pytest
import torch

from mmvitaccel.analysis.formats.part import GraphPart
from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config
from mmvitaccel.testing.detectors import frames, rcnn, retinanet, sample


def detections(model):
    (picture,) = frames(1)
    data = dict(inputs=[picture], data_samples=[sample(None, None)])
    with torch.no_grad():
        (result,) = model.test_step(data)
    return result.pred_instances


@pytest.mark.parametrize(
    ("build", "names"),
    [(retinanet, ("backbone", "neck", "bbox_head")), (rcnn, ("backbone", "neck"))],
)
def test_what_stands_in_gives_the_detections(detector_config, build, names):
    cfg, model = load_config(str(detector_config), {}), build()
    part = GraphPart(cfg, model)
    assert part.names == names
    with torch.no_grad():
        part(torch.zeros(1, 3, 96, 128))
    expected, calls = detections(model), []

    def run(images):
        calls.append(tuple(images.shape))
        return part(images)

    found = detections(part.replaced_by(run))
    assert calls == [(1, 3, 96, 128)]
    assert torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.scores, expected.scores)
    other = detections(part.replaced_by(lambda images: [2 * out for out in part(images)]))
    assert other.scores.shape != expected.scores.shape or not torch.equal(
        other.scores, expected.scores
    )
    assert torch.equal(detections(model).scores, expected.scores), "the model itself stays"


def test_the_backbone_of_a_recognizer(recognizer_config):
    from mmvitaccel.runner.session import build_model

    cfg = load_config(str(recognizer_config), {})
    model = build_model(cfg).eval()
    part, clip = GraphPart(cfg, model), torch.randn(2, 3, 4, 32, 32)
    assert part.names == ("backbone",)
    with torch.no_grad():
        (features,) = part(clip)
        replaced = part.replaced_by(lambda x: [part(x)[0] + 1])
        assert torch.equal(replaced.backbone(clip), features + 1)
        assert torch.equal(model.backbone(clip), features)


def test_a_model_without_a_backbone(detector_config):
    cfg = load_config(str(detector_config), {})
    with pytest.raises(UserError, match="Linear has no backbone, so no part of it can be exported"):
        GraphPart(cfg, torch.nn.Linear(1, 1))
