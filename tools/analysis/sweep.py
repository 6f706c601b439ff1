"""Test a checkpoint at many operating points of ToMe, Eventful and RLT, and recommend one.

    python tools/analysis/sweep.py CONFIG CHECKPOINT --k 256 128 64 --attention exact delta
    python tools/analysis/sweep.py CONFIG CHECKPOINT --r 4 8 12 16
    python tools/analysis/sweep.py CONFIG CHECKPOINT --rlt 0.05 0.1 0.2

Each point is tested as by tools/test.py, with its multiply-adds and its time. An interrupted run is
resumed, and further points are added to existing ones. Writes sweep.csv, sweep.json and sweep.png
(accuracy against multiply-adds and against time, with the Pareto front), and prints the config of
the cheapest point within a loss of accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.adapters.eventful.apply import ATTENTION_MODES
from mmvitaccel.analysis.sweep.folder import SweepFolder
from mmvitaccel.analysis.sweep.operating_point import points_of
from mmvitaccel.analysis.sweep.results import choose_metric
from mmvitaccel.analysis.sweep.sweep import Sweep
from mmvitaccel.analysis.sweep.write import advice, table, write
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.loaders.checked import add_skip_argument
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import own_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--k", type=int, nargs="+", default=[], help="tokens that pass Eventful's gates"
    )
    parser.add_argument(
        "--attention", nargs="+", choices=list(ATTENTION_MODES), default=["exact"], help="with --k"
    )
    parser.add_argument(
        "--eventful-policy",
        nargs="+",
        default=["TopK"],
        metavar="NAME",
        help="with --k; RandomTokens is the control for TopK",
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="with --k: parts of a detector, or all"
    )
    parser.add_argument(
        "--r", type=int, nargs="+", default=[], help="tokens merged per block (ToMe)"
    )
    parser.add_argument(
        "--rlt", type=float, nargs="+", default=[], metavar="T",
        help="thresholds of run-length tokenization, for clips",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: work_dirs/NAME_sweep")
    parser.add_argument("--metric", metavar="NAME", help="accuracy metric, higher is better")
    parser.add_argument(
        "--loss",
        type=float,
        default=0.01,
        help="share of the dense model's accuracy that the recommended point may lose (0.01)",
    )
    parser.add_argument(
        "--overlay", nargs="+", default=[], metavar="FOLDER", help="other sweeps to add to the plot"
    )
    parser.add_argument(
        "--deploy", action="store_true", help="fold BatchNorm into the preceding layers"
    )
    add_weights_arguments(parser)
    add_skip_argument(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, test the unfinished points, write and recommend."""
    args = parse_args(argv)
    if not 0 <= args.loss < 1:
        raise UserError(f"--loss {args.loss:g}: give a share of 1, such as 0.01 for one percent.")
    parts = "all" if args.parts == ["all"] else args.parts
    points = points_of(
        args.k, args.attention, args.eventful_policy, args.r, args.rlt,
        **(dict(parts=parts) if parts else {}),
    )  # fmt: skip
    others = {path: SweepFolder(path).results() for path in args.overlay}
    out = args.out or Path("work_dirs", f"{Path(args.config).stem}_sweep")
    with own_state():
        cfg = load_config(args.config, args.cfg_options)
        sweep = Sweep(
            cfg, args.checkpoint, SweepFolder(out), choice_of(args), args.skip_broken,
            args.deploy, parts,
        )  # fmt: skip
        results = sweep.run(points, Console(file=sys.stdout))
    figures = [r.figures for own in (results, *others.values()) for r in own]
    metric = choose_metric(figures, args.metric)
    files = write(results, metric, args.loss, out, others)
    print("\n" + table(results, metric) + "\n\n" + advice(results, metric, args.loss) + "\n")
    print("\n".join(map(str, files)))


if __name__ == "__main__":
    main()
