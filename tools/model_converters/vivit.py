"""Convert released ViViT weights (TAdaConv's .pyth), or an image transformer's, to this package's.

The result is for the configs in configs/vivit/, as a checkpoint to test or as load_from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import mmvitaccel  # noqa: F401  (closes the gaps of the stack before mmdet is imported)
from mmvitaccel.engine.errors import UserError, one_sentence_errors
from mmvitaccel.models.checkpoint import read_state_dict
from mmvitaccel.models.vivit_weights import convert_vivit_weights


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the .pyth, .pth or .safetensors file")
    parser.add_argument("target", type=Path, help="the .pth file to write")
    parser.add_argument(
        "--tubelet-frames",
        type=int,
        default=2,
        help="frames of a tubelet, for an image transformer's patch embedding (default: 2)",
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, or say what the file is instead."""
    args = parse_args(argv)
    try:
        weights = read_state_dict(args.source)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    try:
        weights = convert_vivit_weights(weights, args.tubelet_frames)
    except ValueError as error:
        raise UserError(f"{args.source}: {error}") from error
    args.target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights}, args.target)
    print(f"{len(weights)} tensors are in {args.target}")


if __name__ == "__main__":
    main()
