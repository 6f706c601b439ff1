"""Small models in released layouts, converted and then tested on data, by the two tools."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmvitaccel.datasets.vid_classes import VID_CLASSES
from mmvitaccel.registry import MODELS

CONFIGS = Path(__file__).parents[2] / "configs"
VITDET = dict(
    img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=3, window_block_indexes=(0,)
)
VIVIT = dict(
    img_size=32, num_frames=4, embed_dim=32, spatial_depth=2, temporal_depth=1, num_heads=2
)
SMALL_RCNN = {
    "model.data_preprocessor.pad_size_divisor": 64,
    "model.neck.in_channels": 32,
    "model.test_cfg.rpn.max_per_img": 20,
    "model.test_cfg.rcnn.score_thr": 0.0,
}
PYRAMID = {"2": 4, "3": 1, "4": 0, "5": 1}  # a level's first convolution with a norm


pytestmark = pytest.mark.usefixtures("one_thread")


def read_config(name: str, **changes: object) -> Config:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = Config.fromfile(CONFIGS / name)
    cfg.merge_from_dict(
        {"test_dataloader.num_workers": 0, "test_dataloader.persistent_workers": False, **changes}
    )
    return cfg


def weights_of(cfg: Config) -> dict[str, torch.Tensor]:
    """The state of a config's model, filled with noise that gives each box its own score."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    noise = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=noise)
    return model.state_dict()


def in_detectron2s_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Faster R-CNN's weights under the names of detectron2's ViTDet."""
    rules = (
        ("neck.simfp_", "backbone.simfp_"), ("backbone.", "backbone.net."),
        ("rpn_head.rpn_conv.", "proposal_generator.rpn_head.conv.conv"),
        ("rpn_head.rpn_cls.", "proposal_generator.rpn_head.objectness_logits."),
        ("rpn_head.rpn_reg.", "proposal_generator.rpn_head.anchor_deltas."),
        ("roi_head.bbox_head.fc_cls.", "roi_heads.box_predictor.cls_score."),
        ("roi_head.bbox_head.fc_reg.", "roi_heads.box_predictor.bbox_pred."),
        ("roi_head.bbox_head.shared_fcs.0.", "roi_heads.box_head.fc1."),
        *((f"roi_head.bbox_head.shared_convs.{i}.", f"roi_heads.box_head.conv{i + 1}.")
          for i in range(4)),
    )  # fmt: skip
    held = {}
    for name, value in state.items():
        ours, theirs = next(rule for rule in rules if name.startswith(rule[0]))
        name = (theirs + name[len(ours) :]).replace(".ln.", ".norm.")
        if not name.startswith("backbone."):
            name = name.replace(".conv.weight", ".weight").replace(".conv.bias", ".bias")
            name = name.replace("rpn_head.weight", "rpn_head.conv.weight")
        held[name] = value
    return held


def in_tadaconvs_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A recognizer's weights under the names of TAdaConv's release."""
    rules = (
        ("cls_head.fc_cls.", "head.linear."), ("backbone.patch_embed.", "backbone.stem.conv1."),
        ("backbone.spatial.cls_token", "backbone.cls_token"),
        ("backbone.spatial.pos_embed", "backbone.pos_embd"),
        ("backbone.spatial.norm.", "backbone.norm."),
        ("backbone.spatial.blocks.", "backbone.layers."),
        ("backbone.temporal.cls_token", "backbone.cls_token_out"),
        ("backbone.temporal.pos_embed", "backbone.temp_embd"),
        ("backbone.temporal.norm.", "backbone.norm_out."),
        ("backbone.temporal.blocks.", "backbone.layers_temporal."),
    )  # fmt: skip
    parts = {
        ".norm1.": ".norm.", ".norm2.": ".norm_ffn.", ".qkv.": ".to_qkv.",
        ".mlp.fc1.": ".ffn.net.0.", ".mlp.fc2.": ".ffn.net.3.",
    }  # fmt: skip
    held = {}
    for name, value in state.items():
        ours, theirs = next(rule for rule in rules if name.startswith(rule[0]))
        name = theirs + name[len(ours) :]
        for our, their in parts.items():
            name = name.replace(our, their)
        held[name] = value
    return held


@pytest.fixture
def convert_and_test(run_tool, tmp_path, capsys):
    """Write the config, convert a file, test it; returns the converted layout and the metrics."""

    def run(cfg: Config, source: Path) -> tuple[str, dict[str, float]]:
        expected = weights_of(cfg)
        cfg.dump(tmp_path / "config.py")
        run_tool("convert_checkpoint", source, "ours.pth")
        # What is said of the file's wrappers may come first
        layout = re.search(r"^layout: (\S+)", capsys.readouterr().out, re.MULTILINE)[1]
        converted = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
        assert converted.keys() == {n for n in expected if "bias_idxs" not in n}
        for name, value in converted.items():
            assert torch.equal(value, expected[name]), name
        run_tool("test", "config.py", "ours.pth", "--work-dir", "run", "--out", "out.pkl")
        (log,) = (tmp_path / "run").glob("*/*.json")
        return layout, json.loads(log.read_text().splitlines()[-1])

    return run


def as_boxes(cfg: Config, boxes: Path) -> None:
    """Let a COCO config read the five small images with two classes."""
    cfg.test_dataloader.dataset.update(
        data_root=str(boxes), ann_file="boxes.json", data_prefix=dict(img="images"),
        metainfo=dict(classes=("bright", "dark")),
    )  # fmt: skip
    cfg.test_dataloader.dataset.pipeline[1] = dict(type="Resize", scale=(64, 64), keep_ratio=True)
    cfg.test_evaluator = dict(type="CocoMetric", metric="bbox", ann_file=str(boxes / "boxes.json"))


def detections(tmp_path: Path) -> list[int]:
    """How many boxes each image has in the dump."""
    return [len(p["pred_instances"]["scores"]) for p in pickle.loads(
        (tmp_path / "out.pkl").read_bytes())]  # fmt: skip


def test_a_detectron2_pickle(convert_and_test, boxes, tmp_path):
    cfg = read_config(
        "vitdet/faster-rcnn_vitdet-b_lsj-100e_coco.py",
        **{f"model.backbone.{key}": value for key, value in VITDET.items()},
        **SMALL_RCNN,
        **{"model.roi_head.bbox_head.num_classes": 2},
    )
    as_boxes(cfg, boxes)
    arrays = {name: v.numpy() for name, v in in_detectron2s_names(weights_of(cfg)).items()}
    arrays["pixel_mean"] = np.float32([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol=2))
    layout, metrics = convert_and_test(cfg, tmp_path / "model_final.pkl")
    assert layout == "detectron2-vitdet"
    assert 0 <= metrics["coco/bbox_mAP"] <= 1
    assert len(detections(tmp_path)) == 5 and min(detections(tmp_path)) > 0


def test_the_papers_vid_detector(convert_and_test, write_cocovid, tmp_path):
    cfg = read_config(
        "eventful/faster-rcnn_vitdet-b_vid-672_top256.py",
        **{f"model.backbone.backbone.{key}": value for key, value in VITDET.items()},
        **SMALL_RCNN,
        **{"model.backbone.policy.k": 5, "img_scale": (64, 64)},
    )
    path = write_cocovid(lengths=(3, 2), classes=VID_CLASSES)
    cfg.test_dataloader.dataset.update(
        data_root=str(tmp_path), ann_file=path.name, data_prefix=dict(img="")
    )
    cfg.test_dataloader.dataset.pipeline[1]["scale"] = (64, 64)
    cfg.test_evaluator[0].ann_file = str(path)
    weights = in_detectron2s_names(weights_of(cfg))
    torch.save({"model": weights, "iteration": 1}, tmp_path / "frcnn_vitdet_final.pth")
    layout, metrics = convert_and_test(cfg, tmp_path / "frcnn_vitdet_final.pth")
    assert layout == "eventful-vitdet-vid"
    assert 0 <= metrics["vid/mAP50"] <= 100
    assert len(detections(tmp_path)) == 5 and min(detections(tmp_path)) > 0


def test_tadaconvs_vivit(convert_and_test, tmp_path):
    pytest.importorskip("mmaction", reason="mmaction2 is not installed")
    cfg = read_config(
        "vivit/vivit-base_32x2x1_kinetics400-rgb.py",
        **{f"model.backbone.{key}": value for key, value in VIVIT.items()},
        **{"model.cls_head.in_channels": 32, "model.cls_head.num_classes": 5},
    )
    for step in cfg.test_dataloader.dataset.pipeline:
        if step["type"] == "SampleFrames":
            step.update(clip_len=4, num_clips=2)
        elif step["type"] in ("Resize", "ThreeCrop"):
            step.update(scale=(-1, 32)) if "scale" in step else step.update(crop_size=32)
    for name in ("a.mp4", "b.mp4"):
        writer = cv2.VideoWriter(
            str(tmp_path / name), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48)
        )
        for i in range(12):
            writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
        writer.release()
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 4\n")
    cfg.test_dataloader.dataset.update(
        data_root=str(tmp_path), ann_file="list.txt", data_prefix=dict(video="")
    )
    weights = in_tadaconvs_names(weights_of(cfg))
    torch.save({"model_state": weights, "epoch": 30, "cfg": "TRAIN: x"}, tmp_path / "k400.pyth")
    layout, metrics = convert_and_test(cfg, tmp_path / "k400.pyth")
    assert layout == "tadaconv-vivit"
    assert metrics["acc/top5"] == 1  # of five classes
    scores = [p["pred_score"] for p in pickle.loads((tmp_path / "out.pkl").read_bytes())]
    assert len(scores) == 2 and torch.equal(*scores)


def test_the_authors_retinanet(convert_and_test, boxes, tmp_path):
    arch = dict(
        _delete_=True,
        embed_dims=(16, 32, 48),
        depths=(1, 1, 1),
        num_heads=(2, 2, 2),
        kernels=(5, 5),
    )
    cfg = read_config(
        "retinanet_efficientvit_m0_coco.py",
        **{
            "model.backbone.arch": arch, "model.neck.in_channels": [16, 32, 48],
            "model.neck.out_channels": 16, "model.bbox_head.in_channels": 16,
            "model.bbox_head.feat_channels": 16, "model.bbox_head.num_classes": 2,
            "model.test_cfg.score_thr": 0.0,
        },
    )  # fmt: skip
    as_boxes(cfg, boxes)
    weights = weights_of(cfg)
    for name in [n for n in weights if n.endswith("attention_biases")]:  # the authors save these
        index = name.replace("attention_biases", "attention_bias_idxs")
        weights[index] = torch.zeros(49, 49, dtype=torch.long)
    held = {"meta": {"mmdet_version": "2.15.0", "CLASSES": ("a", "b")}, "state_dict": weights}
    torch.save(held, tmp_path / "retinanet_fpn_1x_coco.pth")
    layout, metrics = convert_and_test(cfg, tmp_path / "retinanet_fpn_1x_coco.pth")
    assert layout == "efficientvit-retinanet"
    assert 0 <= metrics["coco/bbox_mAP"] <= 1
    assert len(detections(tmp_path)) == 5 and min(detections(tmp_path)) > 0
