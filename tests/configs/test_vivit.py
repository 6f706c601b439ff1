"""The ViViT configs say what their names say, can be built, and the small ones run."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmvitaccel.adapters.attach import link
from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.datasets.motion_clips import (
    MotionSetSettings,
    draw_clip,
    make_motion_set,
    write_clip,
)
from mmvitaccel.runner.session import build_model

pytest.importorskip("mmaction", reason="the config is of mmaction2, which is not installed")

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for folder in ("vivit", "eventful")
    for path in (ROOT / "configs" / folder).rglob("vivit-*.py")
    if "_base_" not in path.parts
)
PATTERN = re.compile(
    r"vivit-(?P<size>base|large|tiny)_(?:32x2x1|16x1x1)_(?P<data>kinetics400-rgb|"
    r"epic-kitchens100-rgb|motion-clips)(?:_top(?P<k>\d+)(?P<kind>_delta|_temporal)?"
    r"|_tome-r(?P<r>\d+))?"
)
CLIP = draw_clip(MotionSetSettings(num_frames=90, img_size=(48, 64)), "left", "train", 0)
DENSE = ROOT / "configs/vivit/vivit-tiny_16x1x1_motion-clips.py"


pytestmark = pytest.mark.usefixtures("metafiles_read_once")


def build_without_weights(cfg: Config) -> torch.nn.Module:
    cfg.model.data_preprocessor.pop("blending", None)  # draws numbers as soon as it is built
    with torch.device("meta"):
        return build_model(cfg)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_what_its_name_says(path):
    name = PATTERN.fullmatch(path.stem).groupdict()
    cfg = Config.fromfile(path)
    model = build_without_weights(cfg)
    backbone = model.backbone
    side = {"kinetics400-rgb": 224, "epic-kitchens100-rgb": 320, "motion-clips": 64}[name["data"]]
    width = {"base": 768, "large": 1024, "tiny": 64}[name["size"]]
    assert backbone.spatial.grid_size == (side // backbone.tubelet_size[1],) * 2
    assert backbone.embed_dim == width
    attached = link(backbone)
    if name["k"] and name["kind"] != "_temporal":
        assert attached.method == "Eventful"
        assert attached.state.policy.k == int(name["k"])
        mode = "DeltaAttention" if name["kind"] else "ExactAttention"
        assert type(attached.state.options.attention).__name__ == mode
    elif name["r"]:
        assert (attached.method, attached.state.r) == ("ToMe", int(name["r"]))
    else:
        assert attached is None
    if name["kind"] == "_temporal":
        trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {"temporal"} | {
            n.split(".")[1] for n in model.state_dict() if "head" in n
        }
        roots = {cfg[f"{s}_dataloader"].dataset.data_root for s in ("train", "val", "test")}
        assert len(roots) == 1
        assert roots.pop().endswith(f"_spatial_top{name['k']}/")
        assert cfg.load_from == cfg.train_dataloader.dataset.data_root + "weights.pth"
        return
    (sample,) = [s for s in cfg.test_dataloader.dataset.pipeline if s["type"] == "SampleFrames"]
    crops = [s for s in cfg.test_dataloader.dataset.pipeline if "crop_size" in s]
    assert [c["crop_size"] for c in crops] == [side]
    if name["size"] != "tiny":
        assert (sample.clip_len, sample.frame_interval, sample.num_clips) == (32, 2, 4)
        assert crops[0]["type"] == "ThreeCrop"


def test_siblings_take_the_same_checkpoint():
    shapes = {}
    for path in CONFIGS:
        model = build_without_weights(Config.fromfile(path))
        key = path.stem.split("_top")[0].split("_tome")[0]
        found = {name: value.shape for name, value in model.state_dict().items()}
        assert shapes.setdefault(key, found) == found, path.stem
    assert len(shapes) == 4


def test_metafile_names_configs_that_are_there():
    metafile = yaml.safe_load((ROOT / "configs/vivit/metafile.yml").read_text())
    named = [ROOT / model["Config"] for model in metafile["Models"]]
    assert sorted(named) == [p for p in CONFIGS if "_temporal" not in p.stem]
    assert all(model["Name"] == path.stem for model, path in zip(metafile["Models"], named))


def write_kinetics(root: Path) -> None:
    for split in ("train", "val"):
        (root / f"videos_{split}").mkdir(parents=True)
        write_clip(root / f"videos_{split}/a.mp4", CLIP, fps=50)
        (root / f"kinetics400_{split}_list_videos.txt").write_text("a.mp4 7\n")


def write_epic(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    (root / "EPIC-KITCHENS/P01/videos").mkdir(parents=True)
    write_clip(root / "EPIC-KITCHENS/P01/videos/P01_01.MP4", CLIP, fps=50)
    header = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,"
    row = "P01_01_0,P01,P01_01,00:00:00.10,00:00:01.50,5,75,3,12"
    for split in ("train", "validation"):
        csv = root / f"annotations/EPIC_100_{split}.csv"
        csv.write_text(f"{header}stop_frame,verb_class,noun_class\n{row}\n")


@pytest.mark.parametrize(
    ("data", "write", "side", "label"),
    [
        ("kinetics400-rgb", write_kinetics, 224, [7]),
        ("epic-kitchens100-rgb", write_epic, 320, [3, 12]),
    ],
)
def test_pipelines_take_videos(tmp_path, data, write, side, label):
    """What each loader makes of a video, up to what the model is given."""
    pytest.importorskip("mmaction")
    cfg = Config.fromfile(ROOT / f"configs/vivit/vivit-base_32x2x1_{data}.py")
    write(tmp_path)
    init_default_scope("mmaction")
    for split, views in (("train", 1), ("val", 1), ("test", 12)):
        settings = cfg[f"{split}_dataloader"].dataset
        settings.data_root = str(tmp_path)
        item = DATASETS.build(settings)[0]
        assert item["inputs"].shape == (views, 3, 32, side, side), split
        assert item["inputs"].dtype == torch.uint8
        assert item["data_samples"].gt_label.tolist() == label


def run(tool: str, *arguments: object) -> None:
    spec = importlib.util.spec_from_file_location(Path(tool).stem, ROOT / "tools" / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def on(data: Path, **more: object) -> list[str]:
    """Options that put a tiny config on clips of its own and in this process."""
    options = [f"{name}={value}" for name, value in more.items()]
    for split in ("train", "val", "test"):
        loader = f"{split}_dataloader"
        options += [f"{loader}.dataset.data_root={data}", f"{loader}.num_workers=0"]
        options += [f"{loader}.persistent_workers=False", f"{loader}.batch_size=4"]
    return ["--cfg-options", *options]


def test_tools_take_the_tiny_configs(tmp_path, capsys):
    """Train, resume, test eventful and merging, count: what a user would type."""
    clips = make_motion_set(tmp_path / "clips", MotionSetSettings(num_train=8, num_val=4))
    work = tmp_path / "work"
    size = ["model.backbone.embed_dim=16", "model.backbone.spatial_depth=2"]
    size += ["model.cls_head.in_channels=16"]
    # Without random clips, a run that is resumed has to end where one in a go does.
    options = [*on(clips), *size, "train_dataloader.dataset.pipeline.1.test_mode=True"]
    options += ["train_cfg.max_epochs=2", "default_hooks.checkpoint.max_keep_ckpts=2"]
    run("train.py", DENSE, "--work-dir", tmp_path / "straight", *options)
    shutil.copytree(tmp_path / "straight", work, ignore=shutil.ignore_patterns("epoch_2.pth"))
    (work / "last_checkpoint").write_text(str(tmp_path / "straight" / "epoch_1.pth"))
    run("train.py", DENSE, "--work-dir", work, "--resume", *options)
    ends = [safe_load(str(f / "epoch_2.pth"))["state_dict"] for f in (tmp_path / "straight", work)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    wrapped = [o.replace("backbone.", "backbone.backbone.", 1) for o in size]
    tiny = ROOT / "configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top16.py"
    merging = ROOT / "configs/vivit/vivit-tiny_16x1x1_motion-clips_tome-r8.py"
    for config in (tiny, merging):
        folder = tmp_path / config.stem
        checkpoint = work / "epoch_2.pth"
        run("test.py", config, checkpoint, "--work-dir", folder, *on(clips), *wrapped)
        metrics = json.loads(next(folder.glob("*/*.json")).read_text())
        assert 0 <= metrics["acc/top1"] <= 1
        capsys.readouterr()
        counts = tmp_path / "counts.json"
        run("analysis/get_flops.py", config, "--json", counts, "--depth", 2)
        counted = json.loads(counts.read_text())
        assert counted["modules"]["backbone.patch_embed"]["macs"] == 8 * 64 * 64 * 3 * 2 * 64
        assert 0.1 < counted["saving"] < 0.9
