"""Draw video clips of seven motions that a single frame does not show."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.datasets.motion_clips import MotionSetSettings, make_motion_set
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    default = MotionSetSettings()
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("out", nargs="?", default="data/motion_clips", help="folder for the set")
    parser.add_argument("--num-train", type=int, default=default.num_train, help="training clips")
    parser.add_argument("--num-val", type=int, default=default.num_val, help="held-out clips")
    parser.add_argument(
        "--num-frames", type=int, default=default.num_frames, help="frames per clip"
    )
    parser.add_argument(
        "--img-size", type=int, nargs=2, default=default.img_size, metavar=("H", "W"), help="pixels"
    )
    parser.add_argument(
        "--noise", type=float, default=default.noise, help="of the sensor, in levels of 255"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="same seed, same clips")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a set made with other settings"
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Draw the set, or report that it exists."""
    given = vars(parse_args(argv))
    out, overwrite = given.pop("out"), given.pop("overwrite")
    given["img_size"] = tuple(given["img_size"])
    try:
        folder = make_motion_set(out, MotionSetSettings(**given), overwrite, _report)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
    print(f"The set is in {folder}")


def _report(what: str, done: int, total: int) -> None:
    if done % max(total // 4, 1) == 0 or done == total:
        print(f"{what}: {done}/{total}", flush=True)


if __name__ == "__main__":
    main()
