"""Accuracy and multiply-adds of a small ViViT on generated clips: a table and a plot.

Draws clips of seven motions, trains the dense model, and tests it dense, eventful (before and after
temporal fine-tuning), with ToMe and with run-length tokenization. An interrupted run can be
resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.adapters.eventful.apply import ATTENTION_MODES
from mmvitaccel.analysis.motion_study import MotionPoint, MotionStudy, save, table
from mmvitaccel.datasets.motion_clips import make_motion_set
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.fit.files import check_data
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import ConfigOptions

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = CONFIGS / "vivit/vivit-tiny_16x1x1_motion-clips.py"
TEMPORAL = CONFIGS / "eventful/tiny/_base_/vivit-tiny_16x1x1_motion-clips_temporal.py"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(TINY), help="dense config")
    parser.add_argument(
        "--temporal-config", default=str(TEMPORAL), help="config for temporal fine-tuning"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="of both configs",
    )
    parser.add_argument("--k", type=int, nargs="*", default=[16, 8, 4, 2])
    parser.add_argument(
        "--attention", nargs="*", choices=list(ATTENTION_MODES), default=["exact", "delta"]
    )
    parser.add_argument("--r", type=int, nargs="*", default=[8, 16, 24], help="of ToMe")
    parser.add_argument(
        "--rlt", type=float, nargs="*", default=[], metavar="T", help="thresholds of RLT"
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/vivit_tiny"))
    add_record_option(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, measure."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    dense = load_config(args.config, args.cfg_options)
    temporal = load_config(args.temporal_config, args.cfg_options)
    train_set = (dense.get("train_dataloader") or {}).get("dataset") or {}
    if not train_set.get("data_root"):
        raise UserError(
            f"config {args.config} has no train_dataloader.dataset.data_root, the folder of the "
            "clips; set it."
        )
    root = Path(train_set["data_root"])
    if not root.exists():
        try:
            make_motion_set(root, progress=_report_drawing)
        except (OSError, RuntimeError) as error:
            raise UserError(str(error)) from error
    check_data(dense, "train", "test")
    study = MotionStudy(dense, temporal, args.work_dir, _report_point)
    points = study.run(args.attention, args.k, args.r, args.rlt)
    files = save(points, args.work_dir)
    recording.save(
        [asdict(point) | dict(dense_over_this=points[0].gmacs / point.gmacs) for point in points]
    )
    print("\n" + table(points) + "\n\n" + "\n".join(map(str, files)))


def _report_drawing(what: str, done: int, total: int) -> None:
    if done % max(total // 4, 1) == 0 or done == total:
        print(f"{what}: {done}/{total}", flush=True)


def _report_point(point: MotionPoint) -> None:
    budget = "" if point.budget is None else f" {point.budget}"
    print(
        f"{point.method}{budget}: top-1 {point.top1:.2f} %, {point.gmacs:.4f} G a clip", flush=True
    )


if __name__ == "__main__":
    main()
