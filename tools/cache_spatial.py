"""Compute the outputs of ViViT's spatial encoder for each clip and cache them on disk.

The first of the two steps of temporal fine-tuning; the second is tools/train.py with a config of
configs/eventful/ whose name ends in "temporal". An interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors, refuse_below
from mmvitaccel.fit.files import check_data
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.video.spatial_cache import SPLITS, cache_spatial


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("out", type=Path, help="folder for the features")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="the I-th of N shares, for N processes at once"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="clips at a time (default: 1)")
    parser.add_argument("--num-workers", type=int, default=2, help="decoders (default: 2)")
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, then fill the folder."""
    args = parse_args(argv)
    share, _, shares = args.part.partition("/")
    if not (share.isdigit() and shares.isdigit() and 1 <= int(share) <= int(shares)):
        raise UserError(f"--part {args.part}: give I/N with I from 1 to N, such as 1/4.")
    refuse_below(args, 1, "batch-size")
    refuse_below(args, 0, "num-workers")
    cfg = load_config(args.config, args.cfg_options)
    check_data(cfg, "train", "test")
    cache_spatial(
        cfg,
        args.checkpoint,
        args.out,
        tuple(args.splits),
        (int(share) - 1, int(shares)),
        args.batch_size,
        args.num_workers,
        _report,
        choice_of(args),
    )
    print(f"The spatial features are in {args.out}")


def _report(split: str, done: int, total: int) -> None:
    if done % max(total // 20, 1) == 0 or done == total:
        print(f"{split}: {done}/{total} clips", flush=True)


if __name__ == "__main__":
    main()
