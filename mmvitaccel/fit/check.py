"""All checks of a run, in the order in which they can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError, building
from mmvitaccel.fit.classes import (
    check_checkpoint_classes,
    check_folder_classes,
    check_head_classes,
    check_palettes,
    check_set_classes,
    check_training_classes,
)
from mmvitaccel.fit.course.hooks import check_hooks
from mmvitaccel.fit.course.optimizer import check_clipping, check_paramwise
from mmvitaccel.fit.course.resumed import (
    check_resumable,
    check_resumed_batch,
    check_resumed_settings,
)
from mmvitaccel.fit.course.samplers import check_samplers
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.evaluators import check_evaluators, check_predictions
from mmvitaccel.fit.files import check_data, check_pretrained, check_pretrained_names
from mmvitaccel.fit.heads import heads_of, parts_with
from mmvitaccel.fit.lists import check_list
from mmvitaccel.fit.objects import check_objects
from mmvitaccel.fit.pictures import check_picture_sizes
from mmvitaccel.fit.schedule import check_remaining_length, check_schedule
from mmvitaccel.fit.settings.clips import check_clips
from mmvitaccel.fit.settings.loaded import check_loaded
from mmvitaccel.fit.settings.loaders import check_filter, check_loaders
from mmvitaccel.fit.settings.loops import check_length
from mmvitaccel.fit.settings.numbers import check_whole
from mmvitaccel.fit.settings.rates import check_rates
from mmvitaccel.fit.settings.suppression import check_suppression
from mmvitaccel.fit.strides import check_strides
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.random_input import backbone_channels
from mmvitaccel.runner.session import build_model

SPLITS = ("train", "val", "test")
_PARTS = (
    *("data_preprocessor", "backbone", "neck", "rpn_head", "bbox_head", "roi_head", "mask_head"),
    *("cls_head", "head"),
)


@building("config")
def check_inputs(cfg: Config, *splits: str) -> None:
    """Run the checks that do not need the model: files, classes, evaluators, schedule.

    Args:
        cfg: A config.
        *splits: The splits of the run: ``train``, ``val``, ``test``.

    Raises:
        UserError: If a file is missing or there is a mismatch.
    """
    _check_dicts(cfg)
    check_data(cfg, *splits)
    _check_preprocessor(cfg)
    check_loaders(cfg, *splits)
    check_samplers(cfg, *splits)
    check_suppression(cfg.model, "train" in splits)
    if "train" in splits:
        check_pretrained(cfg.model)
        check_length(cfg)
        check_schedule(cfg)
        check_hooks(cfg)
        check_clipping(cfg)
        check_rates(cfg)
    sets = data_sets(cfg, *splits)
    for data in sets:
        check_filter(data.where, data.config)
        check_clips(data.where, data.config)
    check_objects(sets)
    check_set_classes(sets)
    check_evaluators(cfg, *(split for split in splits if split != "train"))
    check_palettes(cfg, data_sets(cfg, *(split for split in splits if split != "train")))
    check_picture_sizes(sets)


def _check_dicts(cfg: Config) -> None:
    """Refuse other values for the keys whose value must be a dict."""
    for key in (*(f"{split}_cfg" for split in SPLITS), "optim_wrapper", "default_hooks"):
        value = cfg.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise UserError(f"{key} is {value!r}; give a dict.")
    parts = [(f"model.{key}", cfg.model.get(key)) for key in _PARTS]
    parts += [(key, cfg.get(key)) for key in ("val_evaluator", "test_evaluator")]
    parts += [
        (f"default_hooks.{key}", hook) for key, hook in (cfg.get("default_hooks") or {}).items()
    ]
    for where, value in parts:
        if isinstance(value, str):
            raise UserError(f"{where} is the text {value!r}; give a dict, as dict(type={value!r}).")
    hooks = cfg.get("custom_hooks")
    if hooks is not None and not isinstance(hooks, (list, tuple)):
        raise UserError(f"custom_hooks is {hooks!r}; give a list, such as [dict(type=...)].")


def _check_preprocessor(cfg: Config) -> None:
    """Refuse a std or a padding of 0, and a change of the channel order of other than three."""
    channels = backbone_channels(cfg)
    for where, holder in (("model.data_preprocessor", cfg.model), ("data_preprocessor", cfg)):
        part = holder.get("data_preprocessor") or {}
        check_whole(part, where, "pad_size_divisor", 1)
        std = part.get("std")
        if isinstance(std, (list, tuple)) and 0 in std:
            raise UserError(
                f"{where}.std is {list(std)}, but pixels are divided by it; use 1 for no scaling."
            )
        order = next((key for key in ("bgr_to_rgb", "rgb_to_bgr") if part.get(key)), None)
        if order is not None and channels not in (None, 3):
            raise UserError(
                f"{where}.{order} reorders three channels, but model.backbone."
                f"in_channels is {channels}; set {where}.{order}=False."
            )


def check_test(cfg: Config, checkpoint: str, choice: Choice = USUAL) -> nn.Module:
    """Run all checks before a test, and set ``load_from`` in the config.

    Args:
        cfg: A config; it is changed.
        checkpoint: A file or a URL.
        choice: Which weights of the checkpoint to use.

    Returns:
        The model with these weights on the CPU. Hooks of the config have not been applied to it.

    Raises:
        UserError: If a file is missing or there is a mismatch.
    """
    if cfg.get("test_dataloader") is None:
        raise UserError(f"config {cfg.filename} has no test_dataloader; define it to test.")
    check_inputs(cfg, "test")
    model = build_model(cfg)
    check_model(cfg, model, "test")
    meta = check_checkpoint(model, checkpoint, choice=choice)
    check_start(cfg, checkpoint, meta, True, "test")
    cfg.load_from = checkpoint
    return model


@building("config")
def check_model(cfg: Config, model: nn.Module, *splits: str) -> None:
    """Compare a built model with its data sets, and its parts with each other.

    Args:
        cfg: Config of the model.
        model: The model, in train or eval mode; it is not changed.
        *splits: Splits whose data sets are checked; missing files are ignored.

    Raises:
        UserError: If numbers of classes, labels or strides do not match.
    """
    sets = data_sets(cfg, *splits)
    check_head_classes(model, sets)
    if "train" in splits:
        check_training_classes(model)
    if "train" in splits and cfg.get("train_cfg") is not None:
        check_paramwise(cfg, model)
        if not cfg.get("load_from"):
            check_pretrained_names(model)
        for _, part in parts_with(model, "forward"):
            for data in sets:
                if data.where.startswith("train"):
                    check_loaded(part, data.where, data.config.get("pipeline") or ())
    head = next(heads_of(model), None)
    for data in sets:
        check_folder_classes(data, head)
        check_list(data, head, labels_needed=not data.where.startswith("test"))
    check_predictions(cfg, model, *(split for split in splits if split != "train"))
    check_strides(cfg, model)


@building("config")
def check_start(cfg: Config, path: str, meta: Mapping[str, Any], whole: bool, *splits: str) -> None:
    """Compare a checkpoint's training metadata with the config.

    Args:
        cfg: A config.
        path: Path of the checkpoint, for messages.
        meta: ``meta`` of the checkpoint, as
            :func:`~mmvitaccel.runner.checkpoint.check_checkpoint` returns it.
        whole: Whether the training is resumed; False if only weights are loaded.
        *splits: Splits whose data sets are checked.

    Raises:
        UserError: If it was trained on the same classes in another order, or a training cannot be
            resumed from it.
    """
    check_checkpoint_classes(path, meta, data_sets(cfg, *splits), whole)
    if cfg.get("resume"):
        check_resumable(path, meta)
        check_resumed_batch(cfg, path, meta)
        check_resumed_settings(cfg, path, meta)
        check_remaining_length(cfg, path, meta)
