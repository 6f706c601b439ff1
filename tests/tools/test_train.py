from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvitaccel.compat.checkpoint import safe_load

ROOT = Path(__file__).parents[2]
VAL = "annotations/instances_val2017.json"


def logged(work_dir: Path, key: str) -> list[float]:
    """Every value of ``key`` in the json logs of a work directory's runs, oldest first."""
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [record[key] for record in records if key in record]


def check_refused(caught, capsys, sentence: str, folder: Path, before: set[Path]) -> None:
    """One line on stderr, exit status 2, and no new file or folder."""
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1
    assert sentence in error, error
    assert set(folder.iterdir()) == before


def test_detector_trains_saves_and_resumes(run_tool, detector_config, tmp_path):
    fast = ["--cfg-options", "optim_wrapper.optimizer.lr=0.02", "train_cfg.val_interval=9"]
    run_tool("train", detector_config, "--work-dir", "run", *fast, "train_cfg.max_epochs=6")
    loss = logged(tmp_path / "run", "loss")
    assert len(loss) == 6 * 3
    assert sum(loss[-3:]) < sum(loss[:3])
    saved = safe_load(tmp_path / "run" / "epoch_6.pth")
    assert saved["meta"]["epoch"] == 6

    run_tool(
        "train", detector_config, "--work-dir", "run", "--resume", *fast, "train_cfg.max_epochs=7"
    )
    assert [int(e) for e in logged(tmp_path / "run", "epoch")][-3:] == [7, 7, 7]
    again = ["--work-dir", "other", "--resume", "run/epoch_6.pth"]
    run_tool("train", detector_config, *again, *fast, "train_cfg.max_epochs=7")
    assert len(logged(tmp_path / "other", "loss")) == 3


def test_resuming_another_model(run_tool, detector_config, tmp_path, capsys):
    run = [detector_config, "--work-dir", "run"]
    run_tool("train", *run, "--cfg-options", "train_cfg.val_interval=9")
    before = set((tmp_path / "run").iterdir())
    with pytest.raises(SystemExit) as caught:
        run_tool("train", *run, "--resume", "--cfg-options", "model.backbone.base_channels=8")
    check_refused(caught, capsys, "epoch_1.pth: '", tmp_path / "run", before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named_or_replaced(run_tool, detector_config, tmp_path, capfd, workers):
    path = tmp_path / "boxes" / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:2000])
    tool = ["train", detector_config, "--work-dir"]
    options = ["--cfg-options", "val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    options += [f"train_dataloader.num_workers={workers}"]
    with pytest.raises(SystemExit) as caught:
        run_tool(*tool, "a", *options)
    assert caught.value.code == 2
    assert f"error: {path}: " in capfd.readouterr().err.splitlines()[-1]

    run_tool(*tool, "b", "--skip-broken", *options)
    said = "".join(capfd.readouterr())
    assert f"skipped: {path}: " in said
    assert "1 broken file was skipped" in said
    assert len(logged(tmp_path / "b", "loss")) == 3


def test_amp_and_scaled_learning_rate(run_tool, detector_config, tmp_path):
    options = ["--cfg-options", "val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    run_tool("train", detector_config, "--amp", "--auto-scale-lr", "--work-dir", "run", *options)
    assert all(torch.isfinite(torch.tensor(logged(tmp_path / "run", "loss"))))
    # batches of 2 for a learning rate made for 16
    assert logged(tmp_path / "run", "lr") == pytest.approx([0.01 * 2 / 16] * 3)


def test_recognizer_trains_in_bfloat16(run_tool, recognizer_config, tmp_path):
    run_tool("train", recognizer_config, "--amp", "--work-dir", "run")
    assert (tmp_path / "run" / "epoch_1.pth").is_file()
    assert len(logged(tmp_path / "run", "acc/top1")) == 1


def test_a_hook_given_on_the_command_line_runs(run_tool, detector_config, tmp_path):
    hook = ["default_hooks.ema.type=EMAHook", "default_hooks.ema.momentum=0.5"]
    run_tool("train", detector_config, "--work-dir", "run", "--cfg-options", *hook)
    assert "ema_state_dict" in safe_load(tmp_path / "run" / "epoch_1.pth")


def test_real_images(run_tool, tmp_path):
    """The COCO config as it is, but for the images' number and size and the learning rate."""
    root = os.environ.get("MMVITACCEL_TEST_DATA", str(ROOT / "data"))
    coco = Path(root, "coco")
    if not (coco / "annotations" / "instances_val2017.json").is_file():
        pytest.skip(f"{coco} is not there; set MMVITACCEL_TEST_DATA to the folder of coco/")
    config = ROOT / "configs" / "retinanet_efficientvit_m4_coco.py"
    options = ["--cfg-options", "param_scheduler=None", "optim_wrapper.clip_grad.max_norm=1.0"]
    options += ["optim_wrapper.optimizer.lr=2e-4", "model.backbone.norm_eval=False"]
    options += ["randomness.seed=0", "default_hooks.logger.interval=1"]
    options += ["log_processor.window_size=1", f"val_evaluator.ann_file={coco}/{VAL}"]
    options += [f"test_evaluator.ann_file={coco}/{VAL}"]
    for split, step in (("train", 2), ("val", 1), ("test", 1)):
        loader = f"{split}_dataloader"
        options += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
        options += [f"{loader}.dataset.data_root={coco}", f"{loader}.dataset.indices=4"]
        options += [f"{loader}.dataset.pipeline.{step}.scale=(160,160)"]
    run = [config, "--work-dir", "run"]
    run_tool("train", *run, *options, "train_cfg.max_epochs=6", "train_cfg.val_interval=9")
    loss = logged(tmp_path / "run", "loss")
    assert len(loss) == 6 * 2
    assert sum(loss[-4:]) < 0.95 * sum(loss[:4])
    run_tool(
        "train", *run, "--resume", *options, "train_cfg.max_epochs=7", "train_cfg.val_interval=9"
    )
    assert logged(tmp_path / "run", "epoch")[-2:] == [7, 7]
    test = ["test", config, "run/epoch_7.pth", "--work-dir", "tested", "--out", "p.pkl"]
    run_tool(*test, *options)
    assert len(pickle.loads((tmp_path / "p.pkl").read_bytes())) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cfg-options", "modle.backbone.depth=34"], "did you mean 'model'?"),
        (["--cfg-options", "model.backbone.depht=34"], "ResNet has no argument 'depht'"),
        (["--cfg-options", "model.backbone.depth=33"], "ResNet"),
        (["--cfg-options", "model.backbone.out_indices=[2,7]"], "ResNet"),
        (["--cfg-options", "model.neck.in_channels=[16,33]"], "neck.lateral_convs.1.conv"),
        (["--cfg-options", "model.neck.type=FPM"], "'FPM' is not in mmdet's model registry"),
        (
            ["--cfg-options", "train_dataloader.dataset.data_root=nowhere"],
            "train_dataloader.dataset: the folder nowhere does not exist",
        ),
        (
            ["--cfg-options", "val_dataloader.dataset.ann_file=none.json"],
            "none.json does not exist; put it there or set val_dataloader.dataset.ann_file",
        ),
        (
            [
                "--cfg-options",
                "model.backbone.init_cfg.type=Pretrained",
                "model.backbone.init_cfg.checkpoint=none.pth",
            ],
            "model.backbone.init_cfg.checkpoint none.pth does not exist",
        ),
        (
            ["--cfg-options", "train_dataloader.dataset.pipeline.2.scale=(0,0)"],
            "the pipeline's step Resize fails (",
        ),
        (
            ["--cfg-options", "optim_wrapper.optimizer.type=SGDD"],
            "type 'SGDD' is not in mmengine's optimizer registry",
        ),
        (["--cfg-options", "val_evaluator.iou_thrs=x"], "val_evaluator.iou_thrs is 'x'; give"),
        (["--cfg-options", "val_dataloader=None"], "val_dataloader is not set, but val_cfg and"),
        (
            ["--cfg-options", "train_dataloader.dataset.pipeline.1.with_bbox=False"],
            "has no with_bbox=True, but the model's bbox_head learns from",
        ),
        (["--resume", "none.pth"], "checkpoint none.pth does not exist"),
        (["--launcher", "pytorch"], "not set; start with"),
        (
            ["--auto-scale-lr", "--cfg-options", "auto_scale_lr.base_batch_size=0"],
            "set auto_scale_lr.base_batch_size",
        ),
    ],
)
def test_bad_input(run_tool, detector_config, tmp_path, capsys, monkeypatch, arguments, sentence):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    if "pytorch" in arguments and torch.cuda.is_available():
        pytest.skip("mmengine starts processes on GPUs by itself")
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config, *arguments)
    check_refused(caught, capsys, sentence, tmp_path, before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["model.backbone.arch=m9"], "m9"),
        (["model.backbone.out_indices=[0,1,5]"], "out_indices"),
        (
            ["model.neck.in_channels=[128,256,385]"],
            "EfficientViTFPN: the inputs have (128, 256, 384)",
        ),
    ],
)
def test_bad_input_to_an_efficientvit(run_tool, tmp_path, boxes, capsys, options, sentence):
    config = ROOT / "configs" / "retinanet_efficientvit_m4_coco.py"
    data = [
        f"{split}_dataloader.{key}"
        for split in ("train", "val")
        for key in (
            "dataset.data_root=boxes",
            "dataset.ann_file=boxes.json",
            "dataset.data_prefix.img=images",
            "num_workers=0",
            "persistent_workers=False",
        )
    ]
    small = [
        "train_dataloader.dataset.pipeline.2.scale=(64,64)",
        "val_evaluator.ann_file=boxes/boxes.json",
    ]
    small += [
        f"{s}_dataloader.dataset.metainfo.classes=('bright','dark')" for s in ("train", "val")
    ]
    small += ["model.bbox_head.num_classes=2"]
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        run_tool("train", config, "--cfg-options", *data, *small, *options)
    check_refused(caught, capsys, sentence, tmp_path, before)


def test_labels_that_only_a_built_data_set_knows(run_tool, recognizer_config, tmp_path, capsys):
    """mmaction2's poses lie in a pickle, which nothing but the data set reads."""
    poses = [
        dict(
            frame_dir=f"v{i}", label=label, total_frames=8, img_shape=(32, 32),
            keypoint=np.zeros((1, 8, 17, 2)), keypoint_score=np.ones((1, 8, 17)),
        )
        for i, label in enumerate((0, 1, 7))
    ]  # fmt: skip
    (tmp_path / "poses.pkl").write_bytes(pickle.dumps(poses))
    with recognizer_config.open("a") as file:
        file.write(
            "val_cfg = val_dataloader = val_evaluator = None\n"
            "train_dataloader['dataset'] = dict(type='PoseDataset', ann_file='poses.pkl', "
            "pipeline=[dict(type='UniformSampleFrames', clip_len=4)])\n"
        )
    with pytest.raises(SystemExit) as caught:
        run_tool("train", recognizer_config)
    assert caught.value.code == 2
    said = "error: poses.pkl: the sample v2 has the label 7, but model.cls_head.num_classes is 2"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "work_dirs").exists()


def test_stderr_of_a_process_holds_the_sentence_alone(tmp_path):
    config = ROOT / "configs" / "retinanet_efficientvit_m4_coco.py"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "train.py", config],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: train_dataloader.dataset: the folder data/coco/ does not")
    assert not list(tmp_path.iterdir())
