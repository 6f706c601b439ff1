"""Draw a small data set: images in COCO's format, or videos in CocoVID's."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.datasets.synthetic import (
    ImageSetSettings,
    VideoSetSettings,
    make_image_set,
    make_video_set,
)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors

KINDS = {
    "images": (ImageSetSettings, make_image_set),
    "videos": (VideoSetSettings, make_video_set),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; the settings of each kind are its options."""
    parser = ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, (settings, _) in KINDS.items():
        sub = kinds.add_parser(
            kind,
            description=f"Draw {kind}.",
            epilog=inspect.getdoc(settings),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("out", help="folder for the set")
        sub.add_argument(
            "--overwrite", action="store_true", help="replace a set made with other settings"
        )
        for field in fields(settings):
            sub.add_argument(
                f"--{field.name.replace('_', '-')}",
                **_values(field.default),
                default=field.default,
                help="default: %(default)s",
            )
    return parser.parse_args(argv)


def _values(default: Any) -> dict[str, Any]:
    """Number and type of an option's values: a pair, or any number of names."""
    if not isinstance(default, tuple):
        return dict(type=type(default))
    return dict(type=type(default[0]), nargs="+" if isinstance(default[0], str) else len(default))


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Draw the set, or report that it exists."""
    args = parse_args(argv)
    kind, make = KINDS[args.kind]
    given = {field.name: getattr(args, field.name) for field in fields(kind)}
    try:
        settings = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        folder = make(args.out, settings, overwrite=args.overwrite, progress=_report)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f"The set is in {folder}")


def _report(*step: Any) -> None:
    what, done, total = step
    if done % max(total // 4, 1) == 0 or done == total:
        print(f"{what}: {done}/{total}", flush=True)


if __name__ == "__main__":
    main()
