"""What ``tools/test.py`` adds to a config: dumps, pictures, augmented and folded testing."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict

from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import package_of

_PACK_META = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    # where a data set gives them: which video's frame it is, for methods that remember
    "video_id",
    "frame_id",
    "video_length",
)


def dump_predictions(cfg: Config, path: str) -> None:
    """Write every prediction to a pickle file, in the package's own form.

    Raises:
        UserError: The file's name does not end in ``.pkl`` or ``.pickle``.
    """
    if not path.endswith((".pkl", ".pickle")):
        raise UserError(f"--out {path}: predictions are pickled; give a name ending in .pkl.")
    kind = "mmdet.DumpDetResults" if package_of(cfg) == "mmdet" else "DumpResults"
    metrics = cfg.get("test_evaluator")
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, dict(type=kind, out_file_path=path)]


def draw_predictions(cfg: Config, show: bool, directory: str | None, wait_time: float) -> None:
    """Switch the hook on that draws for the config's kind of model.

    Args:
        cfg: Changed in place.
        show: Whether pictures are shown in a window.
        directory: Where they are written, below ``work_dir/<time stamp>``; None for nowhere.
        wait_time: Seconds for which a window stays.
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


def augment_test(cfg: Config) -> None:
    """Test-time augmentation by the config's ``tta_model`` and ``tta_pipeline``.

    A detector without them is tested as it is and flipped, as mmdet's own tool does.

    Raises:
        UserError: Another kind of model has none.
    """
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    lacking = [key for key in ("tta_model", "tta_pipeline") if cfg.get(key) is None]
    if lacking and package_of(cfg) != "mmdet":
        raise UserError(f"--tta: the config has no {' and no '.join(lacking)}; define it there.")
    if "tta_model" in lacking:
        nms = dict(type="nms", iou_threshold=0.5)
        cfg.tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=nms, max_per_img=100))
    if "tta_pipeline" in lacking:
        cfg.tta_pipeline = [*copy.deepcopy(dataset.pipeline[:-1]), _flips()]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def _flips() -> dict[str, Any]:
    flips = [dict(type="mmdet.RandomFlip", prob=prob) for prob in (1.0, 0.0)]
    return dict(
        type="TestTimeAug",
        transforms=[flips, [dict(type="mmdet.PackDetInputs", meta_keys=_PACK_META)]],
    )


def deploy(cfg: Config) -> None:
    """Fold batch normalisation once the weights are loaded."""
    hooks = list(cfg.get("custom_hooks") or [])
    cfg.custom_hooks = [*hooks, dict(type="mmvitaccel.DeployHook")]
