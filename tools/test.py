"""Test a checkpoint of any OpenMMLab config: detectors, recognizers, classifiers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.fit.built.labels import BuiltDataHook
from mmvitaccel.fit.check import check_test
from mmvitaccel.fit.pictures import PictureSizeHook
from mmvitaccel.fit.settings.loops import check_parts
from mmvitaccel.loaders.checked import add_skip_argument
from mmvitaccel.pictures.class_names import LegibleNamesHook
from mmvitaccel.runner.amp import evaluate_in_float32_on_cpu
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.distributed import add_launcher_arguments, start_processes
from mmvitaccel.runner.evaluation import augment_test, deploy, draw_predictions, dump_predictions
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import run, set_work_dir


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Test (and evaluate) a model")
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    add_weights_arguments(parser)
    parser.add_argument("--work-dir", help="folder for logs and metrics")
    parser.add_argument("--out", "--dump", metavar="FILE.pkl", help="file for all predictions")
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument("--show-dir", help="folder in the work dir for drawn predictions")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds to show each window")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    parser.add_argument(
        "--deploy", action="store_true", help="fold BatchNorm into the preceding layers"
    )
    add_skip_argument(parser)
    add_launcher_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, then test."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    check_parts(cfg)
    evaluate_in_float32_on_cpu(cfg)
    set_work_dir(cfg, args.work_dir)
    if args.out:
        dump_predictions(cfg, args.out)
    if args.show or args.show_dir:
        draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
    if args.deploy:
        deploy(cfg)
    choice = choice_of(args)
    check_test(cfg, args.checkpoint, choice)
    if args.tta:
        augment_test(cfg)
    if args.skip_broken and args.launcher != "none":
        raise UserError(
            "--skip-broken: several processes merge their results by position, which a skipped "
            "sample would shift; test in one process."
        )
    start_processes(cfg, args.launcher, args.local_rank)
    run(
        cfg,
        "test",
        choice,
        args.skip_broken,
        [PictureSizeHook(), BuiltDataHook(), LegibleNamesHook()],
    )


if __name__ == "__main__":
    main()
