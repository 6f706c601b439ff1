"""Run a detector over a folder or list of videos, several at a time, with Ray Data.

    python tools/batch_videos.py videos/ configs/eventful/CONFIG.py CHECKPOINT --out found
    python tools/batch_videos.py list.txt CONFIG CHECKPOINT --out found --budget 40% --workers 4

Each video is processed by one worker and has a result in the folder: NAME.jsonl with the
detections and the cost of every frame. A second call with the same folder processes the videos that
have no result yet. summary.csv has a row for each video. Exit status: 2 if the run could not start,
or no video got as far as its first frame; 3 if some videos failed. It needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.serving.batch import BatchSettings, Outcome, find_videos, run_batch
from mmvitaccel.serving.batch.outcome import finished
from mmvitaccel.video_demo.options import add_detector_arguments
from mmvitaccel.video_demo.schedule import parse_budget
from mmvitaccel.whole_files import check_folder, whole_file

NONE_STARTED, SOME_FAILED = 2, 3


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a folder of videos, or a .txt with a path in each line")
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--budget", metavar="B", help="200ms, 2fps, 40%% (of dense) or 90G")
    add_detector_arguments(parser)
    parser.add_argument(
        "--workers", type=int, help="videos at a time; default: one per GPU, or per two cores"
    )
    parser.add_argument(
        "--threads", type=int, help="threads per worker; default: the cores divided by the workers"
    )
    parser.add_argument(
        "--address", help="address of a running Ray cluster; its machines need the same paths"
    )
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Process the videos without a result, and report all outcomes."""
    args = parse_args(argv)
    require("serve", "ray", "pyarrow")
    if args.budget is not None:
        parse_budget(args.budget)
    videos = find_videos(args.source)
    check_folder(args.out, 0, "--out")
    settings = BatchSettings(
        args.config,
        args.checkpoint,
        args.cfg_options,
        args.budget,
        args.bounds and tuple(args.bounds),
        args.k,
        args.track,
        args.score,
        args.fps,
        choice_of(args),
    )
    described = settings.described()
    there = [finished(args.out, video, described) for video in videos]
    outcomes = [outcome for outcome in there if outcome is not None]
    waiting = [video for video, outcome in zip(videos, there) if outcome is None]
    if waiting:
        with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            task = progress.add_task("", total=len(videos), completed=len(outcomes))

            def done(outcome: Outcome) -> None:
                # A line for each video, also in a file
                progress.console.print(
                    outcome.line(), markup=False, highlight=False, soft_wrap=True
                )
                progress.advance(task)

            outcomes += run_batch(
                waiting, settings, args.out, args.workers, args.threads, args.address, done
            )
    outcomes.sort(key=lambda outcome: outcome.video)
    write_summary(args.out / "summary.csv", outcomes)
    report(outcomes, args.out)


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a table with a row for each video."""
    text = io.StringIO()
    columns = [name for name in asdict(outcomes[0]) if name not in ("fault", "kept", "started")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    for outcome in outcomes:
        writer.writerow({**asdict(outcome), "notes": " ".join(outcome.notes)})
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def report(outcomes: Sequence[Outcome], out: Path) -> None:
    """Print how many videos have results, and list those that failed.

    Raises:
        SystemExit: Some videos failed.
    """
    failed = [outcome for outcome in outcomes if outcome.error]
    kept = sum(outcome.kept for outcome in outcomes)
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} videos are in {out}", end="")
    print(f", {kept} of them from an earlier run" if kept else "", flush=True)
    if not failed:
        return
    for outcome in failed:
        print(f"{outcome.fault}failed: {outcome.video}: {outcome.error}", file=sys.stderr)
    raise SystemExit(SOME_FAILED if any(each.started for each in outcomes) else NONE_STARTED)


if __name__ == "__main__":
    main()
