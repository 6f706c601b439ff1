"""The converter's command line, and what else takes its files: tools, configs and inferencers."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmvitaccel.errors import UserError
from mmvitaccel.registry import MODELS
from mmvitaccel.runner.checkpoint import check_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTOR = dict(
    img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=3, window_block_indexes=(0,)
)
VIVIT = dict(
    img_size=32, num_frames=4, embed_dim=32, spatial_depth=2, temporal_depth=1, num_heads=2
)


pytestmark = pytest.mark.usefixtures("one_thread")


def small_config(name, path, **changes):
    """A config of ours with a small backbone, written to a file; the Config too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = Config.fromfile(CONFIGS / name)
    cfg.merge_from_dict(changes)
    cfg.dump(path)
    return cfg


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    noise = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=noise)
    return model


def in_mmdets_names(state):
    """A detector's weights under the names of mmdet's own ViTDet project."""
    first, held = (4, 1, 0, 1), {}
    for name, value in state.items():
        if name.startswith("neck.simfp_"):
            _, path, layer, rest = name.split(".", 3)
            level = int(path[-1]) - 2
            after = int(layer) - first[level]
            if after < 0:
                name = f"neck.fpn{level + 1}.{layer}.{rest}"
            else:
                rest = rest if rest.startswith("norm.") else f"conv.{rest}"
                rest = rest.replace("norm.", "norm_layer.")
                name = f"neck.{('lateral', 'fpn')[after]}_convs.{level}.{rest}"
        held[name.replace(".ln.", ".norm_layer.")] = value
    return held


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A folder with a small Faster R-CNN's config and weights in mmdet's names; the model."""
    tmp_path = tmp_path_factory.mktemp("detector")
    cfg = small_config(
        "vitdet/faster-rcnn_vitdet-b_lsj-100e_coco.py",
        tmp_path / "detector.py",
        **{f"model.backbone.{key}": value for key, value in DETECTOR.items()},
        **{"model.neck.in_channels": 32, "model.data_preprocessor.pad_size_divisor": 64},
        **{"model.test_cfg.rpn.max_per_img": 20, "model.test_cfg.rcnn.score_thr": 0.0},
    )
    resize = dict(type="Resize", scale=(64, 64), keep_ratio=True)
    cfg.test_dataloader.dataset.pipeline[1] = resize
    cfg.dump(tmp_path / "detector.py")
    model = build(cfg)
    torch.save({"state_dict": in_mmdets_names(model.state_dict())}, tmp_path / "theirs.pth")
    return tmp_path, model.eval()


def test_command_line(detector, run_tool, tmp_path, capsys):
    folder, model = detector
    run_tool("convert_checkpoint", folder / "theirs.pth", tmp_path / "ours.pth")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "layout: mmdet-vitdet (ViTDet of mmdet's projects)"
    assert "used       backbone.pos_embed" in out
    assert "renamed    neck.fpn2.0.bias -> neck.simfp_3.0.bias" in out
    assert "the config must have: norm_eps=1e-05" in out
    assert out[-1] == f"written to {tmp_path / 'ours.pth'}"
    saved = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    torch.testing.assert_close(saved, dict(model.state_dict()), rtol=0, atol=0)
    check_checkpoint(model, str(tmp_path / "ours.pth"))
    with pytest.raises(UserError, match=r"it is of the released layout mmdet-vitdet, convert it"):
        check_checkpoint(model, str(folder / "theirs.pth"))
    shutil.copy(folder / "theirs.pth", tmp_path)
    for arguments, sentence in (
        (("gone.pth", "x.pth"), "error: gone.pth: there is no such checkpoint file"),
        (("theirs.pth", "x.pth", "--format", "mae-vit"), "error: theirs.pth: its blocks|none of"),
        (("theirs.pth", "x.pth", "--prefix", "ema."), "no name in it begins with 'ema.'"),
        (("theirs.pth", "theirs.pth/x.pth"), "theirs.pth"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_tool("convert_checkpoint", *arguments)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1
        assert any(part in error for part in sentence.split("|"))
    assert not (tmp_path / "x.pth").exists()


def test_detectors_inferencer(detector, run_tool, tmp_path):
    from mmdet.apis import DetInferencer

    folder, model = detector
    run_tool("convert_checkpoint", folder / "theirs.pth", tmp_path / "ours.pth")
    inferencer = DetInferencer(
        str(folder / "detector.py"), str(tmp_path / "ours.pth"), device="cpu", show_progress=False
    )
    assert inferencer.model.dataset_meta["classes"][0] == "person"
    torch.testing.assert_close(
        dict(inferencer.model.state_dict()), dict(model.state_dict()), rtol=0, atol=0
    )
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (found,) = inferencer(picture, no_save_vis=True)["predictions"]
    assert len(found["bboxes"]) == len(found["scores"]) == len(found["labels"]) > 0


def test_recognizers_inferencer(run_tool, tmp_path):
    pytest.importorskip("mmaction")
    from mmaction.apis import MMAction2Inferencer

    video = tmp_path / "video.mp4"
    write_video(video)
    cfg = small_config(
        "vivit/vivit-base_32x2x1_kinetics400-rgb.py",
        tmp_path / "recognizer.py",
        **{f"model.backbone.{key}": value for key, value in VIVIT.items()},
        **{"model.cls_head.in_channels": 32, "model.cls_head.num_classes": 5},
    )
    for step in cfg.test_pipeline:
        if step["type"] == "SampleFrames":
            step.update(clip_len=4, num_clips=1)
        elif "scale" in step:
            step["scale"] = (-1, 32)
        elif "crop_size" in step:
            step["crop_size"] = 32
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    cfg.dump(tmp_path / "recognizer.py")
    model = build(cfg).eval()
    torch.save({"model_state": in_tadaconvs_names(model.state_dict())}, tmp_path / "theirs.pyth")
    run_tool("convert_checkpoint", tmp_path / "theirs.pyth", tmp_path / "ours.pth")
    inferencer = MMAction2Inferencer(
        str(tmp_path / "recognizer.py"), str(tmp_path / "ours.pth"), device="cpu"
    )
    (found,) = inferencer(str(video))["predictions"]
    (scores,) = found["rec_scores"]
    assert len(scores) == 5 and sum(scores) == pytest.approx(1, abs=1e-4)
    assert found["rec_labels"] == [[int(np.argmax(scores))]]
    theirs = inferencer.actionrecog_inferencer.model.state_dict()
    torch.testing.assert_close(dict(theirs), dict(model.state_dict()), rtol=0, atol=0)


def write_video(path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for i in range(12):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()


def in_tadaconvs_names(state):
    """A recognizer's weights under the names of TAdaConv's release."""
    tops = {
        "patch_embed": "stem.conv1", "spatial.cls_token": "cls_token",
        "spatial.pos_embed": "pos_embd", "spatial.norm": "norm",
        "temporal.cls_token": "cls_token_out", "temporal.pos_embed": "temp_embd",
        "temporal.norm": "norm_out",
    }  # fmt: skip
    parts = {
        "norm1": "norm", "attn.qkv": "attn.to_qkv", "attn.proj": "attn.proj", "norm2": "norm_ffn",
        "mlp.fc1": "ffn.net.0", "mlp.fc2": "ffn.net.3",
    }  # fmt: skip
    held = {}
    for name, value in state.items():
        name = name.removeprefix("backbone.")
        if name.startswith("cls_head.fc_cls."):
            held[f"head.linear.{name.rpartition('.')[2]}"] = value
        elif ".blocks." in name:
            encoder, _, number, rest = name.split(".", 3)
            part, _, kind = rest.rpartition(".")
            layers = {"spatial": "layers", "temporal": "layers_temporal"}[encoder]
            held[f"backbone.{layers}.{number}.{parts[part]}.{kind}"] = value
        else:
            part = name if name in tops else name.rpartition(".")[0]
            held[f"backbone.{tops[part]}{name[len(part) :]}"] = value
    return held
