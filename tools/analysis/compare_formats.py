"""Compare a checkpoint in several formats: accuracy, time, memory and size, on the test set.

    python tools/analysis/compare_formats.py CONFIG CHECKPOINT
    python tools/analysis/compare_formats.py CONFIG CHECKPOINT --formats torch onnx openvino-int8

Every format is a separate model in which the artifact replaces the part named in the table; the
config's evaluators test this model. The formats take turns batch by batch in this process, on the
CPU. Times are for a batch, from preprocessing to results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.formats.compare import Comparison
from mmvitaccel.analysis.formats.formats import FORMATS
from mmvitaccel.analysis.formats.memory import Given, memory_of
from mmvitaccel.analysis.formats.table import table
from mmvitaccel.analysis.sweep.results import choose_metric, plain
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import own_state
from mmvitaccel.whole_files import whole_file


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=list(FORMATS),
        help="default: all possible formats; the others are listed with the reason",
    )
    parser.add_argument("--metric", metavar="NAME", help="accuracy metric")
    parser.add_argument(
        "--calibration", type=int, default=64, metavar="IMAGES", help="for int8 (default: 64)"
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not start a process for each format"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="new folder for the files")
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Build the formats, test them in turn, and print the table."""
    args = parse_args(argv)
    if args.calibration < 1:
        raise UserError(f"--calibration {args.calibration}: give at least one image.")
    if args.keep is not None and args.keep.exists():
        raise UserError(f"--keep {args.keep} exists already; name a new folder.")
    choice, console = choice_of(args), Console(file=sys.stdout)
    with ExitStack() as opened:
        opened.enter_context(own_state())
        temporary = opened.enter_context(tempfile.TemporaryDirectory())
        folder = args.keep or Path(temporary)
        cfg = load_config(args.config, args.cfg_options)
        comparison = Comparison(cfg, args.checkpoint, folder, args.calibration, choice)
        for name in dict.fromkeys(args.formats or FORMATS):
            try:
                comparison.add(name)
            except UserError as error:
                if args.formats:
                    raise
                print(f"left out: {error}")
        comparison.run(console)
        if not args.no_memory:
            shapes = comparison.source.shapes
            given = Given(args.config, args.cfg_options, args.checkpoint, folder, shapes, choice)
            for row in comparison.rows:
                row.memory = memory_of(given, row.name)
    rows = comparison.rows
    print("\n" + table(rows, choose_metric([row.figures for row in rows], args.metric)))
    if args.json:
        with whole_file(args.json) as file:
            file.write((json.dumps([plain(r.to_json()) for r in rows], indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
