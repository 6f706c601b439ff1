"""Train any OpenMMLab config: detectors, recognizers, classifiers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.fit.built.labels import BuiltDataHook
from mmvitaccel.fit.check import check_inputs, check_model, check_start
from mmvitaccel.fit.course.diverged import DivergedHook
from mmvitaccel.fit.pictures import PictureSizeHook
from mmvitaccel.fit.schedule import ScheduleHook
from mmvitaccel.fit.settings.loops import check_parts
from mmvitaccel.loaders.checked import add_skip_argument
from mmvitaccel.models.weights.wrapped import USUAL
from mmvitaccel.pictures.class_names import LegibleNamesHook
from mmvitaccel.runner.amp import (
    enable_amp,
    evaluate_in_float32_on_cpu,
    serve_amp_on_cpu,
)
from mmvitaccel.runner.checkpoint import (
    add_weights_arguments,
    check_checkpoint,
    choice_of,
    starting_point,
)
from mmvitaccel.runner.config import load_config, scale_learning_rate
from mmvitaccel.runner.distributed import add_launcher_arguments, start_processes
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import build_model, run, set_work_dir
from mmvitaccel.runner.storage import check_room, last_checkpoint


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Train a model")
    add_config_arguments(parser)
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from a checkpoint; without a value, from the last one in the work directory",
    )
    add_weights_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="mixed precision (bfloat16 on a CPU)")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the batch size, from auto_scale_lr.base_batch_size",
    )
    add_skip_argument(parser)
    add_launcher_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, then train."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    check_parts(cfg)
    evaluate_in_float32_on_cpu(cfg)
    set_work_dir(cfg, args.work_dir)
    if args.amp:
        enable_amp(cfg)
    serve_amp_on_cpu(cfg)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    if args.resume and (args.resume != "auto" or last_checkpoint(cfg.work_dir)):
        # With both, mmengine would resume from load_from. Without a checkpoint in the
        # work directory, training starts from load_from as usual.
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if cfg.get("resume") and not cfg.get("load_from"):
        # mmengine uses the file with the last checkpoint's name even if it is empty
        cfg.load_from = last_checkpoint(cfg.work_dir)
    check_inputs(cfg, "train", "val")
    model = build_model(cfg)
    check_model(cfg, model, "train", "val")
    start = starting_point(cfg)
    choice = choice_of(args)
    if choice != USUAL and (start is None or cfg.get("resume")):
        raise UserError(
            "--weights and --prefix select weights of load_from; "
            f"{'a resumed training uses its own' if start else 'the config has none'}."
        )
    if start is not None:
        whole = bool(cfg.get("resume"))
        meta = check_checkpoint(model, start, whole, choice)
        check_start(cfg, start, meta, whole, "train", "val")
    check_room(cfg, model)
    del model
    start_processes(cfg, args.launcher, args.local_rank)
    watching = [PictureSizeHook(), BuiltDataHook(), ScheduleHook(), DivergedHook()]
    run(cfg, "train", choice, args.skip_broken, [*watching, LegibleNamesHook()])


if __name__ == "__main__":
    main()
