"""mAP50 and multiply-adds of eventful methods at several k: a table and a plot.

Without arguments, draws videos, trains the small ViTDet of configs/eventful/tiny on them and
measures it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.tradeoff import (
    METHODS,
    Point,
    draw_generated,
    measure,
    save,
    table,
    train,
)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.fit.files import check_data
from mmvitaccel.loaders.checked import add_skip_argument
from mmvitaccel.models.weights.wrapped import USUAL
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.checkpoint import add_weights_arguments, check_checkpoint, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import ConfigOptions
from mmvitaccel.runner.session import build_model

TINY = Path(__file__).parents[2] / "configs/eventful/tiny/faster-rcnn_vitdet-tiny_vid-128_dense.py"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default=str(TINY), help="dense config")
    parser.add_argument(
        "--cfg-options", nargs="+", action=ConfigOptions, default={}, metavar="KEY=VALUE"
    )
    parser.add_argument("--checkpoint", help="weights to measure (default: train the config first)")
    parser.add_argument("--k", type=int, nargs="+", default=[192, 128, 96, 64, 32, 16])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/eventful_tiny"))
    add_weights_arguments(parser)
    add_skip_argument(parser)
    add_record_option(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, measure."""
    args = parse_args(argv)
    choice = choice_of(args)
    if choice != USUAL and not args.checkpoint:
        raise UserError("--weights and --prefix select weights in a --checkpoint; give one.")
    recording = Recording(args.record, __file__, argv)
    cfg = load_config(args.config, args.cfg_options, reads=("data_root", "generated"))
    draw_generated(cfg, _report_drawing)
    check_data(cfg, "train", "test")
    checkpoint = args.checkpoint
    if checkpoint:
        check_checkpoint(build_model(cfg), checkpoint, choice=choice)
    else:
        checkpoint = str(train(cfg, args.work_dir / "train", args.skip_broken))
    points = measure(
        cfg,
        checkpoint,
        args.methods,
        args.k,
        args.work_dir / "tests",
        _report_point,
        choice,
        args.skip_broken,
    )
    files = save(points, args.work_dir)
    recording.save([asdict(point) for point in points])
    print("\n" + table(points) + "\n\n" + "\n".join(map(str, files)))


def _report_drawing(what: str, done: int, total: int) -> None:
    if done % max(total // 4, 1) == 0 or done == total:
        print(f"{what}: {done}/{total}", flush=True)


def _report_point(point: Point) -> None:
    print(
        f"{point.method} k={point.k}: mAP50 {point.map50:.2f} %, "
        f"backbone {point.backbone_gmacs:.4f} G a frame",
        flush=True,
    )


if __name__ == "__main__":
    main()
