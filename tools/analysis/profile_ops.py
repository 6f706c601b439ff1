"""Share of time in memory-bound operators, compared with matrix products and convolutions.

The default models are EfficientViT-M4 and DeiT-T, as in figure 2 of the EfficientViT paper. Fused
attention of timm's models is disabled, so that softmax and scaling are visible. Weights and pixels
are random; they do not affect the operators.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.backbones import load_backbone
from mmvitaccel.analysis.op_profile import MEMORY_BOUND, profile_shares
from mmvitaccel.errors import ArgumentParser, one_sentence_errors, refuse_below, running
from mmvitaccel.runner.session import own_state

CONFIG = Path(__file__).parents[2] / "configs" / "retinanet_efficientvit_m4_coco.py"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        default=[str(CONFIG), "deit_tiny_patch16_224"],
        help="configs (their backbones are used) or names of timm models",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=224, help="of the square images, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Profile the models and print their shares."""
    args = parse_args(argv)
    refuse_below(args, 1, "batch", "side", "rounds")
    from timm.layers import set_fused_attn

    set_fused_attn(False)
    x = torch.randn(args.batch, 3, args.side, args.side)
    figures = {}

    def profile(model: nn.Module, label: str) -> None:
        with running(model, f"images of {args.side} x {args.side}", every_error=True):
            shares, seconds = profile_shares(model, x, args.rounds)
        figures[label] = dict(shares=shares, seconds=seconds)

    with own_state():
        for name in args.models:
            model = load_backbone(name)
            profile(model, Path(name).stem)
            if hasattr(model, "switch_to_deploy"):
                model.switch_to_deploy()
                profile(model, f"{Path(name).stem}, folded")
    print(f"batch {args.batch}, {args.side} x {args.side}, {torch.get_num_threads()} threads")
    groups = list(next(iter(figures.values()))["shares"])
    width = max(map(len, figures))
    print(f"{'':{width}}" + "".join(f"{g:>15}" for g in groups) + f"{'memory-bound':>15}{'ms':>9}")
    for name, row in figures.items():
        bound = sum(row["shares"][group] for group in MEMORY_BOUND)
        cells = "".join(f"{share:>15.1%}" for share in (*row["shares"].values(), bound))
        print(f"{name:{width}}{cells}{1e3 * row['seconds']:>9.1f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
