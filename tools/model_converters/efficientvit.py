"""Convert released EfficientViT classifiers (Microsoft's .pth, or timm's) to mmpretrain's names.

The result is for the configs in configs/imagenet/, as a checkpoint to test. Detectors need no
conversion: their backbone's init_cfg takes released weights as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import mmvitaccel  # noqa: F401  (closes the gaps of the stack before mmdet is imported)
from mmvitaccel.engine.errors import UserError, one_sentence_errors
from mmvitaccel.models.checkpoint import read_state_dict
from mmvitaccel.models.efficientvit_classifier import classifier_weights


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the .pth file, or its address")
    parser.add_argument("target", type=Path, help="the .pth file to write")
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, or say what the file is instead."""
    args = parse_args(argv)
    try:
        weights = classifier_weights(read_state_dict(args.source))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{args.source}: {error}") from error
    args.target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights}, args.target)
    print(f"{len(weights)} tensors are in {args.target}")


if __name__ == "__main__":
    main()
