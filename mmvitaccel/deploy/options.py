"""What the export tools are asked on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmvitaccel.deploy.onnx_export import Check, Size
from mmvitaccel.errors import UserError
from mmvitaccel.runner.checkpoint import add_weights_arguments
from mmvitaccel.runner.options.arguments import add_config_arguments


def add_export_arguments(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add what all formats have in common.

    Args:
        parser: The tool's.
        suffix: Of the file, with its dot.
    """
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; random weights without")
    parser.add_argument(
        "--out", metavar=f"FILE{suffix}", help="default: the config's name, in the current folder"
    )
    parser.add_argument("--part", choices=("model", "backbone"), default="model")
    parser.add_argument(
        "--no-nms",
        action="store_true",
        help="return all candidates, without non-maximum suppression",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=2,
        default=(160, 224),
        metavar=("H", "W"),
        help="input size for tracing",
    )
    parser.add_argument("--static", action="store_true", help="fix batch 1 and --shape")
    add_weights_arguments(parser)


def path_and_size(args: argparse.Namespace, suffix: str) -> tuple[Path, Size]:
    """Where the file goes, and batch, height and width that it is traced with.

    Raises:
        UserError: The folder is not there, the name ends otherwise, or the size is no image.
    """
    path = Path(args.out or f"{Path(args.config).stem}{suffix}")
    if path.suffix != suffix:
        raise UserError(f"--out {path}: give a name that ends in {suffix}.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: the folder does not exist; make it first.")
    if min(args.shape) < 1:
        raise UserError(f"--shape {args.shape[0]} {args.shape[1]}: give at least one pixel.")
    return path, (1, *args.shape)


def check_line(check: Check) -> str:
    """A check of a file, for people."""
    line = "  {} x {} x {}: largest difference {:.1e}".format(*check.size, check.error)
    if check.detections is None:
        return line
    return f"{line}, {check.unmatched} of {check.detections} boxes missing"
