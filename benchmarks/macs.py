"""Multiply-adds and parameters of configs in a table, counted as tools/analysis/get_flops.py does.

    python benchmarks/macs.py CONFIG [CONFIG ...]
    python benchmarks/macs.py 'configs/vivit/*.py'
    python benchmarks/macs.py CONFIG --record      # keep the rows in benchmarks/results

A recognizer is counted for one view. The total of all views of its test pipeline is counted as in
papers, without the embedding of patches or tubelets.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.flops import count_config
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import own_state


@dataclass(frozen=True)
class Row:
    """One config.

    Attributes:
        config: Path of the config.
        input: Shape of one input, such as ``3 x 32 x 224 x 224``.
        params: Number of learned parameters.
        gmacs: Multiply-adds of one image or view, in 1e9.
        embedding_gmacs: Part of them in the embedding of patches.
        views: Number of views in the test pipeline.
        paper_tmacs: Multiply-adds of all views without the embedding, in 1e12.
        dense_over_this: Multiply-adds of the model without a method over ``gmacs``; None without a
            method.
    """

    config: str
    input: str
    params: int
    gmacs: float
    embedding_gmacs: float
    views: int
    paper_tmacs: float
    dense_over_this: float | None


def measure(config: str) -> Row:
    """Count one config."""
    # OpenMMLab logs to stdout, which should contain only the table.
    with contextlib.redirect_stdout(sys.stderr), own_state():
        counted = count_config(load_config(config, {}))
    embedding = counted.get("patch_embed", 0)
    dense = counted["dense"]["macs"] / counted["macs"] if "dense" in counted else None
    return Row(
        config=config,
        input=" x ".join(map(str, counted["input_shape"])),
        params=counted["params"],
        gmacs=counted["macs"] / 1e9,
        embedding_gmacs=embedding / 1e9,
        views=counted["views"],
        paper_tmacs=counted["views"] * (counted["macs"] - embedding) / 1e12,
        dense_over_this=dense,
    )


def find_configs(patterns: Sequence[str]) -> list[str]:
    """Find configs by path or pattern, without duplicates; those of a pattern are sorted by name.

    Raises:
        UserError: A pattern matches nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not matches:
            raise UserError(f"no config matches {pattern!r}; correct the pattern.")
        found += [config for config in matches if config not in found]
    return found


def row_text(row: Row) -> str:
    """Format a row."""
    dense = "" if row.dense_over_this is None else f"{row.dense_over_this:8.2f}x"
    return (
        f"{row.config:<82}{row.params:>12,}{row.gmacs:>11.3f}{row.embedding_gmacs:>11.3f}"
        f"{row.views:>7}{row.paper_tmacs:>9.3f}{dense}"
    )


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="paths or patterns in quotes")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording, rows = Recording(args.record, __file__, argv), []
    configs = find_configs(args.configs)
    print(f"{'config':<82}{'parameters':>12}{'G macs':>11}{'embedding':>11}  views  T macs  dense")
    for config in configs:
        rows.append(measure(config))
        print(row_text(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
