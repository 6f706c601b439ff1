"""Export a detector, or the backbone of any model, to ONNX, and compare the file with torch.

The graph works for every batch and image size, with BatchNorm folded where possible. The input is
``images``, (B, C, H, W), normalised and padded by the data preprocessor. ``dets`` holds boxes in
input pixels and their scores, ``labels`` their classes. A backbone returns its feature levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.deploy.onnx_export import (
    CHECKED_SIZES,
    OPSET,
    TOLERANCE,
    Check,
    build_part,
    check_file,
    export_module,
)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.extras import require
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
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; random weights without")
    parser.add_argument(
        "--out", metavar="FILE.onnx", help="default: the config's name, in the current folder"
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
    parser.add_argument("--opset", type=int, default=OPSET)
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Export, check, and say how far the file is from torch."""
    args = parse_args(argv)
    path = Path(args.out or f"{Path(args.config).stem}.onnx")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: the folder does not exist; make it first.")
    if min(args.shape) < 1:
        raise UserError(f"--shape {args.shape[0]} {args.shape[1]}: give at least one pixel.")
    require("deploy", "onnx", "onnxruntime")
    size = (1, *args.shape)
    with own_state():
        cfg = load_config(args.config, args.cfg_options)
        choice = choice_of(args)
        module = build_part(cfg, args.checkpoint, args.part, not args.no_nms, choice)
        export_module(module, size, path, not args.static, args.opset)
        checks = check_file(module, path, [size] if args.static else [size, *CHECKED_SIZES])
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; against torch:")
    for check in checks:
        print(_line(check))
    if not all(check.passed for check in checks):
        raise UserError(
            f"{path} computes something else than torch (more than {TOLERANCE:g} apart, see "
            "above); do not use it, try another --opset or --static."
        )


def _line(check: Check) -> str:
    line = "  {} x {} x {}: largest difference {:.1e}".format(*check.size, check.error)
    if check.detections is None:
        return line
    return f"{line}, {check.unmatched} of {check.detections} boxes missing"


if __name__ == "__main__":
    main()
