"""Convert released weights to a checkpoint of this project's configs.

The layout is recognised by the parameter names in the file. Use the result as a checkpoint to test,
as load_from, or as the checkpoint of a backbone's init_cfg.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.conversion.catalogue import LAYOUTS
from mmvitaccel.conversion.convert import convert_file
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SRC", help=".pth, .pyth, .pkl, .safetensors")
    parser.add_argument("target", type=Path, metavar="DST", help="the .pth file to write")
    parser.add_argument(
        "--format",
        default="",
        metavar="NAME",
        help=f"layout of SRC, instead of the recognised one: {', '.join(x.name for x in LAYOUTS)}",
    )
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and list what was done with every tensor."""
    args = parse_args(argv)
    try:
        report = convert_file(args.source, args.target, args.format, choice_of(args))
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    for line in report.lines():
        print(line)
    print(f"written to {args.target}")


if __name__ == "__main__":
    main()
