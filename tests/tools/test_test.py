from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import pytest
import torch

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.registry import MODELS
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


def save_weights(config: Path) -> Path:
    """A checkpoint of the config's model, with fresh weights."""
    torch.manual_seed(0)
    path = config.parent / "weights.pth"
    torch.save(dict(state_dict=build_model(load_config(str(config), {})).state_dict()), path)
    return path


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def metrics(work_dir: Path) -> dict[str, float]:
    """What the last line of the json log of a test says."""
    (log,) = work_dir.glob("*/*.json")
    return json.loads(log.read_text().splitlines()[-1])


def test_detector_dumps_draws_and_augments(run_tool, detector_config, tmp_path):
    tool = ["test", detector_config, save_weights(detector_config)]
    run_tool(*tool, "--work-dir", "a", "--out", "a.pkl", "--show-dir", "v")
    predictions = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert [p["img_id"] for p in predictions] == [0, 1, 2, 3, 4]
    (drawn,) = (tmp_path / "a").glob("*/v")
    assert sorted(p.name for p in drawn.iterdir()) == [f"{i}.png" for i in range(5)]

    run_tool(*tool, "--work-dir", "b", "--out", "b.pkl", "--tta")
    augmented = pickle.loads((tmp_path / "b.pkl").read_bytes())
    assert [p["img_id"] for p in augmented] == [0, 1, 2, 3, 4]
    boxes = [p[0]["pred_instances"]["bboxes"] for p in (predictions, augmented)]
    assert not torch.equal(*boxes)
    assert metrics(tmp_path / "a").keys() == metrics(tmp_path / "b").keys()


@pytest.fixture
def mask_config(detector_config, tmp_path):
    """A narrow Mask R-CNN on the detector's pictures."""
    cfg = load_config(str(detector_config), {})
    model = load_config("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", {}).model
    model.backbone = dict(type="ResNet", depth=18, base_channels=8, stem_channels=8)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.mask_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=8, num_classes=2)
    model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=2, num_convs=1)
    model.test_cfg.rpn.update(nms_pre=20, max_per_img=10)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
    cfg.model = model
    cfg.test_evaluator.metric = ["bbox", "segm"]
    path = tmp_path / "mask.py"
    cfg.dump(str(path))
    return path


def test_masks_are_augmented_by_their_boxes_alone(run_tool, mask_config, tmp_path, capfd):
    weights = save_weights(mask_config)
    run_tool("test", mask_config, weights, "--work-dir", "a", "--out", "a.pkl", "--tta")
    said = "".join(capfd.readouterr())
    assert "--tta: masks cannot be merged; CocoMetric measures bbox only." in said
    figures = metrics(tmp_path / "a")
    assert "coco/bbox_mAP" in figures
    assert not any("segm" in key for key in figures)
    predictions = pickle.loads((tmp_path / "a.pkl").read_bytes())
    boxes = [p["pred_instances"]["bboxes"] for p in predictions]
    assert [len(b) > 0 and b.shape[1] == 4 for b in boxes] == [True] * 5


def test_masks_alone_are_not_augmented(run_tool, mask_config, tmp_path, capsys):
    weights = save_weights(mask_config)
    only = ["--cfg-options", "test_evaluator.metric=segm"]
    with pytest.raises(SystemExit) as caught:
        run_tool("test", mask_config, weights, "--tta", *only)
    assert caught.value.code == 2
    sentence = "error: --tta: test_evaluator CocoMetric has metric=['segm'], and only boxes can be"
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "work_dirs").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
def test_a_broken_picture_is_named_or_skipped(run_tool, detector_config, tmp_path, capfd, content):
    path = detector_config.parent / "boxes" / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    tool = ["test", detector_config, save_weights(detector_config), "--out", "a.pkl", "--work-dir"]
    with pytest.raises(SystemExit) as caught:
        run_tool(*tool, "a")
    assert caught.value.code == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {path}: ")
    assert "--skip-broken" in error

    run_tool(*tool, "b", "--skip-broken")
    said = "".join(capfd.readouterr())
    assert f"skipped: {path}: " in said
    assert "1 broken file was skipped" in said
    predictions = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert [p["img_id"] for p in predictions] == [0, 1, 2, 4]


def test_a_config_without_a_visualizer_draws(run_tool, detector_config, tmp_path):
    weights = save_weights(detector_config)
    with detector_config.open("a") as file:
        file.write("del visualizer\ndefault_hooks.pop('visualization')\n")
    run_tool("test", detector_config, weights, "--work-dir", "a", "--show-dir", "v")
    (drawn,) = (tmp_path / "a").glob("*/v")
    pictures = [cv2.imread(str(drawn / f"{i}.png")) for i in range(5)]
    assert [picture.shape for picture in pictures] == [
        (64, 2 * 64, 3)
    ] * 5  # beside the ground truth


def wrapped(weights: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_weights_of_a_wrapper_are_tested_as_they_are(run_tool, detector_config, tmp_path, prefix):
    plain = save_weights(detector_config)
    held = safe_load(plain)["state_dict"]
    extra = {"criterion.weight": torch.ones(2)} if prefix.startswith("model.") else {}
    torch.save(dict(state_dict=wrapped(held, prefix) | extra), tmp_path / "wrapped.pth")
    for name, path in (("a", plain), ("b", tmp_path / "wrapped.pth")):
        run_tool("test", detector_config, path, "--work-dir", name, "--out", f"{name}.pkl")
    one, other = (pickle.loads((tmp_path / f"{n}.pkl").read_bytes()) for n in "ab")
    for a, b in zip(one, other):
        assert torch.equal(a["pred_instances"]["bboxes"], b["pred_instances"]["bboxes"])
        assert torch.equal(a["pred_instances"]["scores"], b["pred_instances"]["scores"])


def test_which_weights_were_taken_is_said(run_tool, detector_config, tmp_path, capfd):
    plain = save_weights(detector_config)
    held = safe_load(plain)["state_dict"]
    halved = {f"module.{k}": v * 0.5 if v.is_floating_point() else v for k, v in held.items()}
    both = tmp_path / "both.pth"
    torch.save(dict(state_dict=held, ema_state_dict=halved | {"steps": torch.tensor(3)}), both)
    torch.save(dict(state_dict=halved), tmp_path / "halved.pth")
    tool = ["test", detector_config, both, "--work-dir", "a", "--out"]
    run_tool(*tool, "plain.pkl")
    said = capfd.readouterr()
    assert "both.pth: loading 'state_dict'; the file has" in said.out + said.err
    assert "--weights ema_state_dict" in said.out + said.err
    run_tool(*tool, "averaged.pkl", "--weights", "ema_state_dict")
    run_tool("test", detector_config, "halved.pth", "--work-dir", "b", "--out", "halved.pkl")
    scores = {
        name: torch.cat([p["pred_instances"]["scores"] for p in pickle.loads(path.read_bytes())])
        for name in ("plain", "averaged", "halved")
        for path in [tmp_path / f"{name}.pkl"]
    }
    assert torch.equal(scores["averaged"], scores["halved"])
    assert not torch.equal(scores["averaged"], scores["plain"])


def test_recognizer_dumps_and_draws(run_tool, recognizer_config, tmp_path):
    weights = save_weights(recognizer_config)
    run_tool(
        "test", recognizer_config, weights, "--work-dir", "a", "--dump", "a.pkl", "--show-dir", "v"
    )
    predictions = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert [p["pred_score"].shape for p in predictions] == [(2,)] * 4
    strips = sorted((tmp_path / "a").glob("*/v/*.png"))
    assert len(strips) == 4
    # four frames of 32 pixels, under a line of text
    strip = cv2.imread(str(strips[1]))
    assert strip.shape == (18 + 32, 4 * 32, 3)
    assert (strip[18:] == 190).all()
    assert "acc/top1" in metrics(tmp_path / "a")


def test_deploy_folds(run_tool, detector_config, monkeypatch):
    from mmdet.models import ResNet

    class Foldable(ResNet):
        """A ResNet that only notes that it was asked to fold."""

        folded = 0

        def switch_to_deploy(self):
            type(self).folded += 1

    weights = save_weights(detector_config)
    monkeypatch.setitem(MODELS.module_dict, "Foldable", Foldable)
    tool = ["test", detector_config, weights, "--work-dir", "run"]
    backbone = ["--cfg-options", "model.backbone.type=mmvitaccel.Foldable"]
    run_tool(*tool, *backbone)
    assert Foldable.folded == 0
    run_tool(*tool, "--deploy", *backbone)
    assert Foldable.folded == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["."], "checkpoint . is a folder; give the path of a .pth file."),
        (["weights.pth", "--weights", "ema"], "no weights under 'ema'; its entries with weights"),
        (["weights.pth", "--prefix", "net."], "no name in it begins with 'net.'"),
        (["none.pth"], "checkpoint none.pth does not exist; give the path of a .pth file."),
        (["weights.pth", "--out", "x.json"], "--out x.json: predictions are pickled"),
        (["cut.pth"], "cut short"),
        (["hostile.pth"], "refused, because the file asks for pathlib"),
        (
            ["weights.pth", "--cfg-options", "model.backbone.base_channels=8"],
            "layer1.0.conv1.weight' is (4, 4",
        ),
        (["weights.pth", "--cfg-options", "test_dataloader.dataset.data_root=x"], "folder x does"),
        (["weights.pth", "--cfg-options", "test_evaluator.type=CocoMetrix"], "'CocoMetric'"),
        (
            ["weights.pth", "--cfg-options", "test_dataloader=None"],
            "test_dataloader is not set, but",
        ),
        (
            ["weights.pth", "--cfg-options", "test_evaluator=None", "test_cfg=None"],
            "test_cfg and test_evaluator are not set, but test_dataloader is; set all of",
        ),
        (["weights.pth", "--deploy"], "leave out the hook or --deploy"),
    ],
)
def test_bad_input(run_tool, detector_config, tmp_path, capsys, arguments, sentence):
    weights = save_weights(detector_config)
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:5000])
    torch.save(dict(state_dict=dict(w=Hostile(tmp_path / "ran"))), tmp_path / "hostile.pth")
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        run_tool("test", detector_config, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), error[:7]) == (1, "error: ")
    assert sentence in error
    assert set(tmp_path.iterdir()) == before


def test_half_precision_without_an_accelerator(run_tool, detector_config, tmp_path):
    tool = ["test", detector_config, save_weights(detector_config), "--work-dir", "a"]
    run_tool(*tool, "--cfg-options", "test_cfg.fp16=True")
    assert "coco/bbox_mAP" in metrics(tmp_path / "a")


def test_augmenting_needs_a_recipe(run_tool, recognizer_config, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_tool("test", recognizer_config, save_weights(recognizer_config), "--tta")
    assert "no tta_model and no tta_pipeline" in capsys.readouterr().err
    assert not (tmp_path / "work_dirs").exists()
