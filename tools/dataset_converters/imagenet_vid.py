"""Convert ImageNet VID (ILSVRC 2015, 2017) and DET's 30-class subset to CocoVID json files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.datasets.ilsvrc import OUTPUT_FILES, convert
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        help="folder with Annotations and Data, or the folder where the archives were unpacked",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder for the json files (default: annotations, beside Annotations)",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=list(OUTPUT_FILES),
        help="what to convert (default: everything whose annotations are there)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="your own class names in the annotations, in the order of the model's outputs "
        "(default: the 30 synsets of ImageNet VID)",
    )
    parser.add_argument(
        "--from-folders",
        action="store_true",
        help="use all videos and images on disk, including those in no list (2017)",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="skip frames whose annotation or image is missing or damaged",
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, or report what is missing."""
    args = parse_args(argv)
    try:
        convert(
            args.input,
            args.output,
            args.sets,
            classes=args.classes,
            from_folders=args.from_folders,
            skip_missing=args.skip_missing,
        )
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    main()
