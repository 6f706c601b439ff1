"""Export a detector, or the backbone of any model, to OpenVINO, and compare the file with torch.

Writes FILE.xml and FILE.bin, with the inputs and outputs of tools/deploy/export_onnx.py. --int8
quantises weights and activations (NNCF, post-training), calibrated with images of the training set
with the preprocessing of the test. tools/analysis/compare_formats.py measures the accuracy of int8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torch import Tensor, nn

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.deploy.calibration import calibration_images
from mmvitaccel.deploy.onnx_export import (
    CHECKED_SIZES,
    TOLERANCE,
    Size,
    build_part,
    check_outputs,
    example_images,
    image_channels,
)
from mmvitaccel.deploy.openvino_export import export_openvino, open_openvino
from mmvitaccel.deploy.options import add_export_arguments, check_line, path_and_size
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.runner.checkpoint import choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import own_state

SUFFIX = ".xml"
_CHECKED = 4  # images of the training set


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_export_arguments(parser, SUFFIX)
    parser.add_argument("--int8", action="store_true", help="quantise; needs the package nncf")
    parser.add_argument(
        "--calibration", type=int, default=128, metavar="IMAGES", help="with --int8 (default: 128)"
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Export, check, and print the error against torch."""
    args = parse_args(argv)
    path, size = path_and_size(args, SUFFIX)
    if args.calibration < 1:
        raise UserError(f"--calibration {args.calibration}: give at least one image.")
    require("deploy", "onnx", "openvino", *(["nncf"] if args.int8 else []))
    with own_state():
        cfg = load_config(args.config, args.cfg_options)
        module = build_part(cfg, args.checkpoint, args.part, not args.no_nms, choice_of(args))
        images = list(calibration_images(cfg, args.calibration)) if args.int8 else None
        export_openvino(module, size, path, not args.static, images)
        sizes = [size] if args.static else [size, *CHECKED_SIZES]
        batches = _batches(module, images, sizes)
        checks = check_outputs(module, open_openvino(path), batches)
    total = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")))
    print(f"{path} and .bin: {total / 2**20:.1f} MiB{' in int8' * args.int8}; against torch:")
    for check in checks:
        print(check_line(check))
    if not args.int8 and not all(check.passed for check in checks):
        raise UserError(
            f"{path} differs from torch by more than {TOLERANCE:g} (see above); do not use it, "
            f"try --static."
        )


def _batches(
    module: nn.Module, calibration: list[Tensor] | None, sizes: Sequence[Size]
) -> list[Tensor]:
    """Inputs of the comparison: random pixels, or calibration images for int8."""
    if calibration is not None:
        return calibration[:_CHECKED]
    return [example_images(size, image_channels(module)) for size in sizes]


if __name__ == "__main__":
    main()
