"""Run an eventful detector on a video under a budget; draw detections, tokens and costs.

    python tools/video_demo.py clip.mp4 configs/eventful/CONFIG.py CHECKPOINT --budget 200ms
    python tools/video_demo.py camera CONFIG CHECKPOINT --budget 40% --track --out seen.mp4
    python tools/video_demo.py clip.mp4 CONFIG CHECKPOINT --budget-schedule 0:200ms,100:80ms

Recomputed tokens are red, the redder the more gates they passed. The strip above shows milliseconds
and multiply-adds of the dense and of the eventful model; the dense model is timed on the first
frame and on every 50th, with --beside on every frame. While it runs, + and - in the terminal change
the budget; q and Ctrl-C stop the run and finish the files. It needs the extra `video`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, one_sentence_errors, refuse_below
from mmvitaccel.extras import require
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.video_demo import VideoDemo
from mmvitaccel.video_demo.files import check_output
from mmvitaccel.video_demo.options import add_detector_arguments
from mmvitaccel.video_demo.record import check_played, record
from mmvitaccel.video_demo.schedule import (
    check_bounds,
    check_score,
    parse_budget,
    parse_schedule,
)
from mmvitaccel.video_reader import open_video
from mmvitaccel.video_reader.live import POLICIES
from mmvitaccel.video_reader.source import HELP


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help=HELP.replace("%", "%%"))
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", type=Path, default=Path("out.mp4"), help="default: out.mp4")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--budget", metavar="B", help="200ms, 2fps, 40%% (of dense) or 90G")
    budget.add_argument("--budget-schedule", metavar="FRAME:B,...", help="such as 0:200ms,100:80ms")
    add_detector_arguments(parser)
    parser.add_argument(
        "--beside", action="store_true", help="draw the dense model beside, on every frame"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a table with a row per frame")
    parser.add_argument("--frames", type=int, help="stop after so many frames")
    parser.add_argument(
        "--policy", choices=POLICIES, help="which frames of a live source to keep; default: newest"
    )
    parser.add_argument(
        "--reconnect",
        type=int,
        default=0,
        metavar="TIMES",
        help="how often to reconnect to a live source that ended",
    )
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, then run on the video."""
    args = parse_args(argv)
    require("video", "av", "supervision")
    schedule, budget = args.budget_schedule, args.budget
    schedule = None if schedule is None else parse_schedule(schedule)
    budget = None if budget is None else parse_budget(budget)
    bounds = check_bounds(args.bounds, has_budget=bool(budget or schedule))
    check_output(args.out, ".mp4", "--out", args.source)
    if args.csv is not None:
        check_output(args.csv, ".csv", "--csv", args.source)
    refuse_below(args, 1, "frames")
    demo = VideoDemo(
        load_config(args.config, args.cfg_options),
        args.checkpoint,
        budget,
        bounds,
        args.k,
        args.track,
        check_score(args.score),
        choice_of(args),
        beside=args.beside,
    )
    video = open_video(args.source, args.fps, args.policy, args.reconnect)
    summary = record(demo, video, args.out, args.csv, schedule, args.frames)
    check_played(summary, video)
    for note in video.notes():
        print(f"warning: {note}")
    print(summary.text())
    if demo.budget is not None and demo.budget.missed:
        print(demo.budget.missed)
    for path in filter(None, (args.out, args.csv)):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
