"""Rank the channels of queries, keys, values and feed-forward layers by importance for the loss.

First-order Taylor importance: ``|w * dL/dw|`` summed over the weights of a channel, which the
EfficientViT paper uses to choose widths (figure 6). The loss is the config's, on its training data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.channel_importance import (
    STRUCTURES,
    accumulate_gradients,
    channel_importance,
    mean_importance,
)
from mmvitaccel.errors import ArgumentParser, one_sentence_errors, refuse_below
from mmvitaccel.fit.files import check_data
from mmvitaccel.loaders.checked import add_skip_argument
from mmvitaccel.runner.checkpoint import add_weights_arguments, check_checkpoint, choice_of
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import build_model, own_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; without, random weights")
    parser.add_argument("--batches", type=int, default=4, help="of training data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every channel's importance")
    add_weights_arguments(parser)
    add_skip_argument(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Rank the channels, and print the mean of each structure by block."""
    args = parse_args(argv)
    refuse_below(args, 1, "batches")
    with own_state():
        cfg = load_config(args.config, args.cfg_options)
        check_data(cfg, "train")
        model = build_model(cfg)
        if args.checkpoint:
            check_checkpoint(model, args.checkpoint, choice=choice_of(args))
        loss = accumulate_gradients(model, cfg, args.batches, args.skip_broken)
        found = channel_importance(model)
    print(f"{args.config}, {args.checkpoint or 'random weights'}, mean loss {loss:.4f}")
    width = max(map(len, found))
    print(f"{'mean importance of a channel':{width}}" + "".join(f"{k:>11}" for k in STRUCTURES))
    for name, block in found.items():
        cells = (f"{mean(block[k]):>11.2e}" if k in block else f"{'':11}" for k in STRUCTURES)
        print(f"{name:{width}}" + "".join(cells))
    means = mean_importance(found)
    cells = (f"{means[k]:>11.2e}" if k in means else f"{'':11}" for k in STRUCTURES)
    print(f"{'all':{width}}" + "".join(cells))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
