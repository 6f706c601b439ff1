"""Export a detector, or the backbone of any model, to ONNX, and compare the file with torch.

The graph works for every batch and image size, with BatchNorm folded where possible. The input is
``images``, (B, C, H, W), normalised and padded by the data preprocessor. ``dets`` holds boxes in
input pixels and their scores, ``labels`` their classes. A backbone returns its feature levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.deploy.onnx_export import (
    CHECKED_SIZES,
    OPSET,
    TOLERANCE,
    build_part,
    check_file,
    export_module,
)
from mmvitaccel.deploy.options import add_export_arguments, check_line, path_and_size
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.runner.checkpoint import choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import own_state

SUFFIX = ".onnx"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_export_arguments(parser, SUFFIX)
    parser.add_argument("--opset", type=int, default=OPSET)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Export, check, and print the error against torch."""
    args = parse_args(argv)
    path, size = path_and_size(args, SUFFIX)
    require("deploy", "onnx", "onnxruntime")
    with own_state():
        cfg = load_config(args.config, args.cfg_options)
        choice = choice_of(args)
        module = build_part(cfg, args.checkpoint, args.part, not args.no_nms, choice)
        export_module(module, size, path, not args.static, args.opset)
        checks = check_file(module, path, [size] if args.static else [size, *CHECKED_SIZES])
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; against torch:")
    for check in checks:
        print(check_line(check))
    if not all(check.passed for check in checks):
        raise UserError(
            f"{path} differs from torch by more than {TOLERANCE:g} (see above); do not use it, "
            f"try another --opset or --static."
        )


if __name__ == "__main__":
    main()
