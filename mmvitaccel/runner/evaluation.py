"""Additions of ``tools/test.py`` to a config: dumps, pictures, TTA, BatchNorm folding."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS

from mmvitaccel.errors import UserError, building
from mmvitaccel.registry import type_name
from mmvitaccel.runner.config import package_of
from mmvitaccel.whole_files import check_folder

_PACK_META = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    # video and frame numbers from the data set, for methods with streams
    "video_id",
    "frame_id",
    "video_length",
)


_VISUALIZERS = dict(mmdet="mmdet.DetLocalVisualizer", mmpretrain="mmpretrain.UniversalVisualizer")


@building("config")
def dump_predictions(cfg: Config, path: str) -> None:
    """Write all predictions to a pickle file in the package's format.

    Raises:
        UserError: The file's name does not end in ``.pkl`` or ``.pickle``, or it cannot be
            written.
    """
    if not path.endswith((".pkl", ".pickle")):
        raise UserError(f"--out {path}: predictions are pickled; give a name ending in .pkl.")
    check_folder(Path(path).absolute().parent, 0, "the predictions")
    kind = "mmdet.DumpDetResults" if package_of(cfg) == "mmdet" else "DumpResults"
    metrics = cfg.get("test_evaluator")
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type=kind, out_file_path=path)]


@building("config")
def draw_predictions(cfg: Config, show: bool, directory: str | None, wait_time: float) -> None:
    """Enable the visualization hook for the config's kind of model.

    Args:
        cfg: Changed in place.
        show: Whether pictures are shown in a window.
        directory: Output folder below ``work_dir/<time stamp>``; None to write nothing.
        wait_time: Seconds for which a window is shown.
    """
    hooks = cfg.get("default_hooks") or ConfigDict()
    hook = hooks.get("visualization") or ConfigDict()
    package = package_of(cfg)
    if package == "mmdet":
        hook.setdefault("type", "mmdet.DetVisualizationHook")
        hook.update(draw=True, show=show, wait_time=wait_time, test_out_dir=directory)
    elif package == "mmaction":
        hook = ConfigDict(type="mmvitaccel.ClipVisualizationHook", out_dir=directory)
        hook.update(show=show, wait_time=wait_time)
    else:
        hook.setdefault("type", "VisualizationHook")
        hook.update(enable=True, show=show, wait_time=wait_time, out_dir=directory)
    hooks.visualization = hook
    cfg.default_hooks = hooks
    _serve_visualizer(cfg, package)


def _serve_visualizer(cfg: Config, package: str) -> None:
    """Set the package's visualizer if a config has none, or mmengine's, which draws nothing."""
    visualizer = cfg.get("visualizer") or ConfigDict()
    if package in _VISUALIZERS and (type_name(visualizer) or "Visualizer") == "Visualizer":
        visualizer.setdefault("name", "visualizer")
        cfg.visualizer = ConfigDict(visualizer, type=_VISUALIZERS[package])


@building("config")
def augment_test(cfg: Config) -> None:
    """Test-time augmentation by the config's ``tta_model`` and ``tta_pipeline``.

    A detector without them is tested on the original and flipped image, as by mmdet's tool. Masks
    cannot be merged: of a detector with masks, only the boxes are tested.

    Raises:
        UserError: Another kind of model has none, the model is a tracker, or the model or its
            evaluator only has masks.
    """
    _check_images(cfg)
    data = list(_data_sets(cfg.test_dataloader.dataset))
    lacking = [key for key in ("tta_model", "tta_pipeline") if cfg.get(key) is None]
    if lacking and package_of(cfg) != "mmdet":
        raise UserError(f"--tta: the config has no {' and no '.join(lacking)}; define it there.")
    if "tta_model" in lacking:
        nms = dict(type="nms", iou_threshold=0.5)
        cfg.tta_model = ConfigDict(type="mmdet.DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    pipelines = [
        [*copy.deepcopy(dataset.pipeline[:-1]), _flips()]
        if "tta_pipeline" in lacking
        else cfg.tta_pipeline
        for dataset in data
    ]
    cfg.tta_pipeline = pipelines[0]
    if type_name(cfg.tta_model) == "DetTTAModel":
        settings = cfg.tta_model.get("tta_cfg") or {}
        absent = [key for key in ("nms", "max_per_img") if key not in settings]
        if absent:
            raise UserError(
                f"--tta: tta_model.tta_cfg has no {' and no '.join(absent)}, by which boxes are "
                "merged; give dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)."
            )
        _check_boxes(cfg)
        cfg.tta_model.type = "mmvitaccel.BoxTTAModel"
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset, pipeline in zip(data, pipelines):
        dataset.pipeline = pipeline


def _data_sets(dataset: Any) -> Iterator[Any]:
    """Configs of the data sets inside wrappers, which may combine several."""
    if isinstance(dataset, (list, tuple)):
        for own in dataset:
            yield from _data_sets(own)
    elif "dataset" in dataset or "datasets" in dataset:
        yield from _data_sets(dataset["dataset" if "dataset" in dataset else "datasets"])
    else:
        yield dataset


def _check_images(cfg: Config) -> None:
    """Refuse video models: tracks of a video and of its mirror image cannot be merged."""
    kind = cfg.model.get("type")
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
            kind = registry.get(kind)
    own_way = cfg.get("tta_model") is not None and type_name(cfg.tta_model) != "DetTTAModel"
    tracks = any(base.__name__ == "BaseMOTModel" for base in getattr(kind, "__mro__", ()))
    if tracks and not own_way:
        raise UserError(
            f"--tta: {type_name(cfg.model)} follows objects through videos, and tracks of a video "
            "and of its mirror image cannot be merged; leave --tta out."
        )


def _check_boxes(cfg: Config) -> None:
    """Remove mask metrics, because masks cannot be merged.

    Raises:
        UserError: No metric is left.
    """
    if "bbox_head" not in cfg.model and "roi_head" not in cfg.model:
        masks = [key for key in ("mask_head", "panoptic_head") if key in cfg.model]
        if masks:
            raise UserError(
                f"--tta: {type_name(cfg.model)} with its {masks[0]} puts out masks alone, and only "
                "boxes can be merged; leave --tta out."
            )
    metrics = cfg.get("test_evaluator") or []
    for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
        kinds = metric.get("metric", ())
        kinds = [kinds] if isinstance(kinds, str) else list(kinds or ())
        boxes = [kind for kind in kinds if kind != "segm"]
        if boxes == kinds:
            continue
        if not boxes:
            raise UserError(
                f"--tta: test_evaluator {type_name(metric)} has metric={kinds}, and only boxes can "
                "be merged; set test_evaluator.metric=bbox or leave --tta out."
            )
        metric["metric"] = boxes
        print_log(
            f"--tta: masks cannot be merged; {type_name(metric)} measures {', '.join(boxes)} only.",
            logger="current",
        )


def _flips() -> dict[str, Any]:
    flips = [dict(type="mmdet.RandomFlip", prob=prob) for prob in (1.0, 0.0)]
    return dict(
        type="TestTimeAug",
        transforms=[flips, [dict(type="mmdet.PackDetInputs", meta_keys=_PACK_META)]],
    )


@building("config")
def deploy(cfg: Config) -> None:
    """Fold BatchNorm after the weights are loaded."""
    hooks = list(cfg.get("custom_hooks") or [])
    cfg.custom_hooks = [*hooks, dict(type="mmvitaccel.DeployHook")]
