"""Write a self-contained HTML page of a run's work directory.

    python tools/analysis/report.py work_dirs/NAME

Config, accuracy, cost by part, layer and gate (of a test with mmvitaccel.CostHook and MacsMetric),
curves and sample frames (tools/test.py --show-dir). The page loads nothing from other hosts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmvitaccel.analysis.report.page import page
from mmvitaccel.analysis.report.work_dir import read_run
from mmvitaccel.errors import ArgumentParser, one_sentence_errors
from mmvitaccel.whole_files import whole_file


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work_dir", help="of tools/train.py or tools/test.py")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="default: report.html in the work directory"
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Read the directory, write the page."""
    args = parse_args(argv)
    run = read_run(args.work_dir)
    out = args.out or run.path / "report.html"
    with whole_file(out) as file:
        file.write(page(run).encode())
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
