"""Recognise actions in a video file or a camera stream, one frame at a time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.device import get_device

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, one_sentence_errors, refuse_below, running
from mmvitaccel.runner.attached_hooks import load_model
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.video.clip_steps import ClipSettings
from mmvitaccel.video.stream_report import read_names, recognise
from mmvitaccel.video_reader import open_video
from mmvitaccel.video_reader.live import POLICIES
from mmvitaccel.video_reader.source import HELP


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("video", help=HELP.replace("%", "%%"))
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--labels",
        nargs="+",
        type=Path,
        default=(),
        metavar="FILE",
        help="class names, one per line; one file each for verbs and nouns",
    )
    parser.add_argument("--max-steps", type=int, help="stop after this many steps")
    parser.add_argument("--no-dense", action="store_true", help="do not time the dense model")
    parser.add_argument(
        "--no-macs", action="store_true", help="do not count multiply-adds (a separate pass)"
    )
    parser.add_argument("--fps", type=float, help="frame rate of pictures, or in place of a file's")
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        help="for a live source that is faster than the model: use only the newest frame "
        "(default), or keep all and fall behind",
    )
    parser.add_argument(
        "--reconnect",
        type=int,
        default=0,
        metavar="TIMES",
        help="number of reconnections to an interrupted live source (default: 0)",
    )
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, then process the stream to its end."""
    args = parse_args(argv)
    refuse_below(args, 1, "max-steps")
    refuse_below(args, 0, "reconnect")
    cfg = load_config(args.config, args.cfg_options)
    names = [read_names(path) for path in args.labels]
    settings = ClipSettings.of(cfg)
    model = load_model(cfg, args.checkpoint, choice_of(args))
    model.to(get_device()).eval()
    with running(model, args.video):
        recognise(
            model,
            open_video(args.video, args.fps, args.policy, args.reconnect),
            settings,
            names,
            max_steps=args.max_steps,
            count=not args.no_macs,
            against_dense=not args.no_dense,
        )


if __name__ == "__main__":
    main()
