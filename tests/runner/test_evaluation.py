from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.visualization import Visualizer

from mmvitaccel.errors import UserError
from mmvitaccel.runner.evaluation import augment_test, deploy, draw_predictions, dump_predictions


def config(scope, **more):
    steps = [dict(type="LoadImageFromFile"), dict(type="Resize"), dict(type="PackDetInputs")]
    dataset = dict(type="RepeatDataset", dataset=dict(type="D", pipeline=steps))
    return Config(
        dict(
            default_scope=scope,
            model=dict(type="M"),
            test_dataloader=dict(dataset=dataset),
            test_evaluator=dict(type="E"),
            **more,
        )
    )


@pytest.mark.parametrize(
    ("scope", "kind"), [("mmdet", "mmdet.DumpDetResults"), ("mmaction", "DumpResults")]
)
def test_dump(scope, kind):
    cfg = config(scope)
    dump_predictions(cfg, "x.pkl")
    dump_predictions(cfg, "y.pickle")
    assert cfg.test_evaluator == [
        dict(type="E"),
        dict(type=kind, out_file_path="x.pkl"),
        dict(type=kind, out_file_path="y.pickle"),
    ]
    with pytest.raises(UserError, match=r"--out x\.json: .*\.pkl"):
        dump_predictions(cfg, "x.json")


def test_a_dump_that_cannot_be_written_is_refused_before_the_test(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: the predictions cannot be written there, .* is a"):
        dump_predictions(config("mmdet"), str(tmp_path / "file" / "x.pkl"))
    dump_predictions(config("mmdet"), str(tmp_path / "new" / "x.pkl"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("scope", "visualizer", "kind"),
    [
        ("mmdet", None, "mmdet.DetLocalVisualizer"),
        ("mmdet", dict(type="Visualizer", vis_backends=[]), "mmdet.DetLocalVisualizer"),
        ("mmdet", dict(type=Visualizer), "mmdet.DetLocalVisualizer"),
        ("mmdet", dict(type="TrackLocalVisualizer"), "TrackLocalVisualizer"),
        ("mmpretrain", None, "mmpretrain.UniversalVisualizer"),
    ],
)
def test_a_visualizer_that_draws_is_there(scope, visualizer, kind):
    cfg = config(scope) if visualizer is None else config(scope, visualizer=visualizer)
    draw_predictions(cfg, False, "vis", 3.0)
    assert cfg.visualizer.type == kind
    assert ("vis_backends" in cfg.visualizer) == (
        visualizer is not None and "vis_backends" in visualizer
    )


def test_draw():
    hook = dict(type="DetVisualizationHook", score_thr=0.5)
    cfg = config("mmdet", default_hooks=dict(visualization=hook))
    draw_predictions(cfg, False, "vis", 3.0)
    assert cfg.default_hooks.visualization == dict(
        hook, draw=True, show=False, wait_time=3.0, test_out_dir="vis"
    )
    cfg = config("mmaction")
    draw_predictions(cfg, True, None, 3.0)
    assert cfg.default_hooks.visualization == dict(
        type="mmvitaccel.ClipVisualizationHook", show=True, wait_time=3.0, out_dir=None
    )


def test_augment_a_detector_by_flips():
    cfg = config("mmdet")
    augment_test(cfg)
    assert (cfg.model.type, cfg.model.module.type) == ("mmvitaccel.BoxTTAModel", "M")
    steps = cfg.test_dataloader.dataset.dataset.pipeline
    assert [step.type for step in steps] == ["LoadImageFromFile", "Resize", "TestTimeAug"]
    assert "pipeline" not in cfg.test_dataloader.dataset


@pytest.mark.parametrize("own", [True, False])
def test_augment_sets_that_are_tested_together(own):
    cfg = config("mmdet")
    one = cfg.test_dataloader.dataset.dataset
    two = dict(type="D", pipeline=[dict(type="LoadImageFromNDArray"), dict(type="PackDetInputs")])
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[one, two])
    if own:
        cfg.tta_pipeline = [dict(type="TestTimeAug")]
    augment_test(cfg)
    assert "pipeline" not in cfg.test_dataloader.dataset
    steps = [[s.type for s in d.pipeline] for d in cfg.test_dataloader.dataset.datasets]
    assert steps == (
        [["TestTimeAug"]] * 2
        if own
        else [
            ["LoadImageFromFile", "Resize", "TestTimeAug"],
            ["LoadImageFromNDArray", "TestTimeAug"],
        ]
    )


def with_masks(**more):
    cfg = config("mmdet", **more)
    cfg.model.roi_head = dict(mask_head=dict(type="FCNMaskHead"))
    return cfg


def test_masks_are_left_out_of_an_augmented_test():
    cfg = with_masks(tta_model=dict(type="DetTTAModel", tta_cfg=dict(nms={}, max_per_img=7)))
    cfg.test_evaluator = [dict(type="CocoMetric", metric=["bbox", "segm"]), dict(type="E")]
    augment_test(cfg)
    assert cfg.test_evaluator == [dict(type="CocoMetric", metric=["bbox"]), dict(type="E")]
    assert cfg.model.type == "mmvitaccel.BoxTTAModel"
    assert cfg.model.tta_cfg.max_per_img == 7


def test_an_augmented_test_of_masks_alone_is_refused():
    cfg = with_masks()
    cfg.test_evaluator = dict(type="CocoMetric", metric="segm")
    with pytest.raises(UserError, match=r"--tta: test_evaluator CocoMetric has metric=\['segm'\]"):
        augment_test(cfg)
    cfg = config("mmdet")
    cfg.model.mask_head = dict(type="SOLOHead")
    with pytest.raises(UserError, match="--tta: M with its mask_head puts out masks alone"):
        augment_test(cfg)


def test_an_augmented_test_of_tracks_is_refused():
    cfg = config("mmdet")
    cfg.model.type = "mmdet.ByteTrack"
    with pytest.raises(UserError, match="--tta: ByteTrack follows objects through videos, and tr"):
        augment_test(cfg)
    cfg.tta_model = dict(type="mmdet.DetTTAModel")
    with pytest.raises(UserError, match="--tta: ByteTrack follows objects"):
        augment_test(cfg)
    cfg.tta_model = dict(type="TracksOfMine")
    augment_test(cfg)
    assert cfg.model.type == "TracksOfMine"


def test_augment_as_the_config_says():
    cfg = config("mmaction", tta_model=dict(type="T", n=2), tta_pipeline=[dict(type="P")])
    augment_test(cfg)
    assert cfg.model == dict(type="T", n=2, module=dict(type="M"))
    assert cfg.test_dataloader.dataset.dataset.pipeline == [dict(type="P")]
    with pytest.raises(UserError, match="the config has no tta_model and no tta_pipeline"):
        augment_test(config("mmaction"))


def test_deploy_keeps_other_hooks():
    cfg = config("mmdet", custom_hooks=[dict(type="EMAHook")])
    deploy(cfg)
    assert [hook.type for hook in cfg.custom_hooks] == ["EMAHook", "mmvitaccel.DeployHook"]
    cfg = config("mmdet")
    deploy(cfg)
    assert len(cfg.custom_hooks) == 1


@pytest.mark.parametrize(
    ("settings", "absent"),
    [({}, "nms and no max_per_img"), (dict(nms={}), "max_per_img"), (None, "nms and no max_per")],
)
def test_boxes_are_merged_by_settings(settings, absent):
    cfg = with_masks(tta_model=dict(type="DetTTAModel", tta_cfg=settings))
    with pytest.raises(
        UserError, match=rf"^--tta: tta_model\.tta_cfg has no {absent}.*; give dict"
    ):
        augment_test(cfg)
