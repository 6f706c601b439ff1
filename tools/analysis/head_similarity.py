"""Measure the similarity of the attention heads in each block on given images.

For each head: the highest cosine similarity of its attention map to that of another head in the
block, averaged over heads and images. Near 1, heads are redundant (figure 3 of the EfficientViT
paper).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.backbones import image_files, load_backbone, read_images
from mmvitaccel.analysis.head_similarity import similarity_by_block
from mmvitaccel.errors import ArgumentParser, one_sentence_errors, refuse_below, running
from mmvitaccel.runner.checkpoint import add_weights_arguments, choice_of
from mmvitaccel.runner.session import own_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="config (its backbone is used) or name of a timm model")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; without, random weights")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=16, help="number of images")
    parser.add_argument(
        "--side", type=int, default=224, help="side of the resized images in pixels"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_weights_arguments(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Compare the heads, and print a line per block."""
    args = parse_args(argv)
    refuse_below(args, 1, "count", "side")
    images = read_images(image_files(args.images, args.count), args.side)
    with own_state():
        model = load_backbone(args.model, args.checkpoint, choice_of(args))
        with running(model, f"images of {args.side} x {args.side}", every_error=True):
            found = similarity_by_block(model, images)
    weights = args.checkpoint or "random weights"
    print(f"{args.model}, {weights}, {len(images)} images of {args.side} x {args.side}")
    for name, value in found.items():
        print(f"  {name:24} {value:.3f}")
    print(f"  {'mean':24} {sum(found.values()) / len(found):.3f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
