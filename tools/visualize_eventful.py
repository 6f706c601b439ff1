"""Show which tokens pass an eventful model's gates in a video, and the error against dense.

    python tools/visualize_eventful.py clip.mp4 configs/eventful/CONFIG.py CHECKPOINT
    python tools/visualize_eventful.py clip.mp4 configs/vitdet/CONFIG.py CHECKPOINT --k 256

Writes gates.mp4 (passed tokens in red), strip.png (eight of its frames), error.png and frames.json.
Without a checkpoint, the weights are random.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, UserError, building, one_sentence_errors, refuse_below
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.pictures.gate_run import GateRun
from mmvitaccel.pictures.gates import GatePictures
from mmvitaccel.runner.attached_hooks import load_model
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.video_reader import open_video
from mmvitaccel.video_reader.source import HELP


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help=HELP.replace("%", "%%"))
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; random weights without")
    parser.add_argument(
        "--k", type=int, help="tokens that pass each gate, for a config without Eventful"
    )
    parser.add_argument("--attention", default="exact", help="tokenwise, delta or exact, with --k")
    parser.add_argument("--frames", type=int, default=60, help="number of frames (default: 60)")
    parser.add_argument("--fps", type=float, help="frame rate of images, or instead of the file's")
    parser.add_argument("--out", type=Path, default=Path("gates"), help="output folder")
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Build the model, follow the video and write the pictures."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint, choice_of(args))
    if args.k is not None:
        with building("--k"):
            attach_eventful(model, dict(type="TopK", k=args.k), args.attention)
    refuse_below(args, 1, "frames")
    run = GateRun(cfg, model)
    with open_video(args.video, args.fps) as source:
        pictures = GatePictures(args.out, source.fps or 25.0)
        count = min(args.frames, source.length or args.frames)
        frames = (frame.image[..., ::-1].copy() for frame in islice(source, count))
        for number, frame in enumerate(run.follow(frames), start=1):
            pictures.add(frame)
            error = f"error {100 * frame.error:.2f} %"
            print(f"\rframe {number} of {count}: {error}", end="", flush=True)
    print()
    notes = source.notes()
    if not pictures.rows:
        raise UserError(" ".join(notes) or f"{source.name} has no frames.")
    for note in notes:
        print(f"warning: {note}")
    errors = [row["error"] for row in pictures.rows if not row["first"]]
    if errors:
        mean, largest = 100 * sum(errors) / len(errors), 100 * max(errors)
        print(
            f"{len(errors)} later frames: error {mean:.2f} % in the mean, {largest:.2f} % at most"
        )
    for path in pictures.close():
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
