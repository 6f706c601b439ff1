"""Exported graphs against torch and against mmdet's own predictions, on sizes of every kind."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from mmvitaccel.core.attention import dense
from mmvitaccel.deploy.detection_graph import DetectionGraph, NonMaxSuppression
from mmvitaccel.deploy.onnx_export import (
    CHECKED_SIZES,
    Check,
    build_part,
    check_file,
    check_outputs,
    compare_detections,
    export_module,
    open_session,
    run_session,
)
from mmvitaccel.errors import UserError
from mmvitaccel.models.efficientvit.attention import WindowAttention
from mmvitaccel.runner.config import load_config
from mmvitaccel.testing.models import vitdet

needs_onnx = pytest.mark.extras("deploy", "onnx", "onnxruntime")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def cfg(efficientvit_config):
    """A RetinaNet with a narrow EfficientViT."""
    options = {"model.test_cfg.score_thr": 0.3, "model.test_cfg.max_per_img": 20}
    return load_config(str(efficientvit_config), options)


def lively(module: nn.Module) -> nn.Module:
    """Weights by which no layer is left out, scores spread and boxes are of every size."""
    with torch.no_grad():
        for parameter in module.parameters():
            std = parameter[0].numel() ** -0.5 if parameter.dim() == 4 else 0.3
            nn.init.normal_(parameter, std=std)
        if isinstance(module, DetectionGraph):
            head = module.detector.bbox_head
            outs = head(module.detector.extract_feat(torch.randn(1, 3, 128, 128)))
            for conv, levels, spread in zip((head.retina_cls, head.retina_reg), outs, (2.0, 0.3)):
                conv.weight.mul_(spread / levels[0].std())
                conv.bias.zero_()
    return module


@pytest.fixture
def exported(cfg, tmp_path):
    """Return a function that exports a part with lively weights: the module and its file."""

    def export(part, suppress=True, dynamic=True, size=(2, 128, 160)):
        module = lively(build_part(cfg, None, part, suppress))
        export_module(module, size, tmp_path / "model.onnx", dynamic)
        return module, tmp_path / "model.onnx"

    return export


@needs_onnx
@pytest.mark.parametrize("part", ["backbone", "model"])
def test_one_file_for_every_size(exported, part):
    """Maps smaller than a window, padded windows, odd sizes, another batch than the traced."""
    for check in check_file(*exported(part)):
        assert check.passed, check
        assert check.detections != 0


@needs_onnx
def test_candidates_without_suppression(exported):
    module, path = exported("model", suppress=False)
    assert all(check.passed for check in check_file(module, path))
    dets, labels = run_session(open_session(path), torch.randn(1, 3, 96, 96))
    assert dets.shape[1] == labels.shape[1] == 5 * 100


@needs_onnx
def test_a_static_file_takes_its_own_size_alone(exported):
    module, path = exported("backbone", dynamic=False, size=(1, 160, 160))
    assert check_file(module, path, [(1, 160, 160)])[0].passed
    with pytest.raises(UserError, match=r"an input of .* give --static and the --shape"):
        check_file(module, path, [(2, 96, 96)])


@needs_onnx
def test_attention_in_blocks_of_unequal_length(monkeypatch, tmp_path):
    """Rows of 25 tokens in blocks of 9, 9 and 7, which the exporter would take for three of 9."""
    monkeypatch.setattr(dense, "CPU_BLOCK_LOGITS", 250)
    module = lively(vitdet(img_size=80, embed_dim=32, depth=2, num_heads=2, window_size=3,
                           window_block_indexes=(0,))).eval()  # fmt: skip
    export_module(module, (1, 80, 80), tmp_path / "model.onnx", dynamic=False)
    (check,) = check_file(module, tmp_path / "model.onnx", [(1, 80, 80)])
    assert check.passed, check


def test_maps_of_another_shape_do_not_pass():
    def run(images):
        return [torch.zeros(1, 3, 4, 5)]

    (check,) = check_outputs(nn.Conv2d(3, 3, 1), run, [torch.randn(1, 3, 4, 4)])
    assert not check.passed


@needs_onnx
def test_a_file_of_other_weights_does_not_pass(exported):
    module, path = exported("model")
    lively(module)
    assert not all(check.passed for check in check_file(module, path))


def test_the_graph_predicts_what_mmdet_predicts(cfg):
    from mmdet.structures import DetDataSample

    graph = lively(build_part(cfg, None, "model", True))
    images = torch.randn(2, 3, 96, 160)
    meta = dict(img_shape=(96, 160), ori_shape=(96, 160), scale_factor=(1.0, 1.0))
    meta |= dict(batch_input_shape=(96, 160), pad_shape=(96, 160))
    samples = [DetDataSample(metainfo=meta) for _ in images]
    with torch.no_grad():
        dets, labels = graph(images)
        expected = graph.detector.predict(images, samples)
    for own, label, sample in zip(dets, labels, expected):
        found = sample.pred_instances
        assert len(found) == (label >= 0).sum() > 0
        torch.testing.assert_close(own[label >= 0, 4], found.scores)
        torch.testing.assert_close(own[label >= 0, :4], found.bboxes)
        assert torch.equal(label[label >= 0], found.labels)
        assert not own[label < 0].any()


@needs_onnx
def test_window_attention_is_the_same_in_any_size_when_exported(tmp_path):
    layer = lively(WindowAttention(24, 3, 4, (5, 3, 3))).eval()
    path = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamo = {} if torch.__version__ < "2.5" else dict(dynamo=False)
        torch.onnx.export(
            layer,
            torch.randn(1, 24, 6, 9),
            str(path),
            input_names=["images"],
            dynamic_axes={"images": {0: "b", 2: "h", 3: "w"}},
            **dynamo,
        )
    session = open_session(path)
    for size in [(4, 4), (1, 1), (2, 3), (4, 1), (8, 4), (5, 7), (9, 4), (1, 5)]:
        x = torch.randn(2, 24, *size)
        torch.testing.assert_close(run_session(session, x)[0], layer(x), rtol=1e-3, atol=1e-4)


def test_suppression_keeps_the_best_of_each_image():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    scores = torch.tensor([[0.6, 0.9, 0.8, 0.1], [0.9, 0.6, 0.1, 0.8]])
    chosen = NonMaxSuppression.apply(boxes.expand(2, 4, 4), scores[:, None], 10, 0.5, 0.2)
    assert chosen.tolist() == [[0, 0, 1], [0, 0, 2], [1, 0, 0], [1, 0, 3]]
    assert len(NonMaxSuppression.apply(boxes.expand(2, 4, 4), scores[:, None], 1, 0.5, 0.2)) == 2


def test_detections_are_compared_by_class():
    dets = torch.tensor([[[0.0, 0, 64, 64, 0.9], [0, 0, 0, 0, 0]]])
    labels = torch.tensor([[1, -1]])
    near = (dets + torch.tensor([0.01, 0, 0, 0, 0]), labels)
    check = compare_detections((1, 64, 64), (dets, labels), near)
    assert check.passed
    assert check.detections == 1
    assert check.error == pytest.approx(0.01 / 64, rel=1e-3)
    for other in [(dets, labels + 1), (dets + torch.tensor([9.0, 0, 0, 0, 0]), labels)]:
        check = compare_detections((1, 64, 64), (dets, labels), other)
        assert check.unmatched == 1
        assert not check.passed


def test_sizes_checked_hold_every_kind_of_window():
    maps = [(-(-height // 16), -(-width // 16)) for _, height, width in CHECKED_SIZES]
    assert any(max(size) < 7 for size in maps)
    assert any(max(size) > 7 and size[0] % 7 for size in maps)
    assert any(size == (14, 14) for size in maps)
    assert len({batch for batch, _, _ in CHECKED_SIZES}) > 1
    assert Check((1, 1, 1), 1.0).passed is False


def test_other_detectors_are_refused(cfg):
    detector = build_part(cfg, None, "model", True).detector
    detector.bbox_head.test_cfg["nms"] = dict(type="soft_nms")
    with pytest.raises(UserError, match="'soft_nms', which ONNX does not have"):
        DetectionGraph(detector)
    detector.bbox_head = nn.Identity()
    with pytest.raises(UserError, match="RetinaNet with Identity cannot be exported"):
        DetectionGraph(detector)
