"""Draw which patches of an image or a video clip ToMe merges into one token, block by block.

    python tools/visualize_tome.py photo.jpg --timm vit_base_patch16_224 --pretrained --r 16
    python tools/visualize_tome.py clip.mp4 CONFIG --checkpoint CHECKPOINT --out tokens.png

Every token is filled with the mean colour of its patches and outlined. In a clip, a token can
extend over several frames.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.pictures.token_run import draw_merging, timm_config
from mmvitaccel.runner.checkpoint import (
    add_weights_arguments,
    check_checkpoint,
    choice_of,
)
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import ConfigOptions
from mmvitaccel.runner.session import build_model

SUFFIXES = (".png", ".jpg", ".jpeg")


def schedule(text: str) -> Any:
    """Parse ``--r``: 8, 0.25, [8,8,4] or (8,-1)."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise UserError(f"--r {text}: give 8, 0.25, [8,8,4] or (8,-1).") from None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="image or video file")
    parser.add_argument("config", nargs="?", help="config of a model with a transformer")
    parser.add_argument("--checkpoint", help="checkpoint file; random weights without")
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, default={})
    parser.add_argument("--timm", metavar="NAME", help="a timm model instead of a config")
    parser.add_argument("--pretrained", action="store_true", help="load timm's pretrained weights")
    parser.add_argument("--r", help="tokens merged per block; default: the config's, else 8")
    parser.add_argument("--blocks", type=int, nargs="+", help="blocks to draw, from 0")
    parser.add_argument("--target", help="path of the transformer in the model")
    parser.add_argument("--out", type=Path, default=Path("tokens.png"), help="PNG or JPEG")
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Build the model, run it once and write the picture."""
    args = parse_args(argv)
    if (args.config is None) == (args.timm is None):
        raise UserError("give either a config or --timm NAME.")
    if args.out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out {args.out}: give a name that ends in {', '.join(SUFFIXES)}.")
    r = None if args.r is None else schedule(args.r)
    if args.timm is not None:
        cfg = timm_config(args.timm, args.pretrained)
    else:
        cfg = load_config(args.config, args.cfg_options)
    model = build_model(cfg)
    if args.checkpoint is not None:
        check_checkpoint(model, args.checkpoint, choice=choice_of(args))
    drawn = draw_merging(cfg, model, args.input, r, args.blocks, args.target)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    # cv2.imwrite does not report errors
    args.out.write_bytes(cv2.imencode(args.out.suffix, drawn[..., ::-1])[1].tobytes())
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
