"""Count the multiply-adds that a config's model executes, module by module.

The model runs on random pixels, in eval mode, with untrained weights; for a detector
``forward(mode='tensor')``: backbone, neck and heads on the padded image. Excluded are the data
preprocessor, box decoding and non-maximum suppression (the second stage of a two-stage detector
runs on the first stage's proposals for such pixels). The count of a recognizer is for one view; the
number of views per video in its test pipeline is printed too. A model with ToMe or Eventful is also
counted without it, an eventful one on the first frames of a generated video. A multiply-add counts
as one; ``flops`` are twice that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.flops import count_config
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors, refuse_below
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.arguments import add_config_arguments
from mmvitaccel.runner.session import own_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Count a model's multiply-adds and parameters")
    add_config_arguments(parser)
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="input size in pixels, one number for a square; default: the test pipeline's",
    )
    parser.add_argument(
        "--frames", type=int, default=5, help="number of frames for an eventful model"
    )
    parser.add_argument("--depth", type=int, default=1, help="depth of the module names")
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON; - for stdout, and nothing else"
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Count, and print a table or JSON."""
    args = parse_args(argv)
    refuse_below(args, 1, "frames", "depth")
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: the folder does not exist; make it first.")
    # OpenMMLab logs to stdout, which should only have the figures
    with contextlib.redirect_stdout(sys.stderr), own_state():
        cfg = load_config(args.config, args.cfg_options)
        figures = count_config(cfg, _size(args.shape), args.depth, args.frames)
    text = json.dumps(figures, indent=2)
    if args.json == "-":
        print(text)
        return
    if args.json:
        Path(args.json).write_text(text + "\n")
    print(_table(figures))


def _size(shape: list[int] | None) -> tuple[int, int] | None:
    if shape is None:
        return None
    if len(shape) > 2:
        raise UserError(f"--shape has {len(shape)} numbers; give H, or H and W.")
    return shape[0], shape[-1]


def _table(figures: dict[str, Any]) -> str:
    """One row per module; multiply-adds in one column, or per frame, and dense."""
    columns = {"multiply-adds": figures}
    frames = figures.get("frames")
    if frames:
        columns = {"first frame": frames["first"], "steady frame": frames["steady"]}
        columns[f"mean of {frames['length']}"] = figures
    if "dense" in figures:
        columns["dense"] = figures["dense"]
    names = [*figures["modules"], "total"]
    width = max(len(name) for name in names)
    heads = "".join(f"  {head:>18}" for head in columns)
    lines = [f"input {' x '.join(map(str, figures['input_shape']))}", ""]
    lines.append(f"{'module':{width}}  {'params':>12}{heads}")
    for name in names:
        params, *macs = (
            _row(column, name)[key]
            for key, column in [("params", figures), *(("macs", c) for c in columns.values())]
        )
        cells = "".join(f"  {n:>18,}" for n in macs)
        lines.append(f"{name:{width}}  {params:>12,}{cells}")
    return "\n".join([*lines, "", *_summary(figures)])


def _row(figures: dict[str, Any], name: str) -> dict[str, int]:
    return figures if name == "total" else figures["modules"][name]


def _summary(figures: dict[str, Any]) -> list[str]:
    totals = [_short(figures[key]) for key in ("macs", "flops", "params")]
    lines = ["{} multiply-adds, {} FLOPs, {} parameters".format(*totals)]
    views, embedding = figures["views"], figures.get("patch_embed", 0)
    if embedding:
        lines.append(f"without patch embedding, as papers count: {_split(figures, 1)}")
    if views > 1:
        lines.append(f"for one view; the test pipeline takes {views} of each sample")
        lines.append(f"of {views} views {_short(views * figures['macs'])} multiply-adds")
        if embedding:
            lines.append(f"of {views} views without patch embedding: {_split(figures, views)}")
    if "frames" in figures:
        share = figures["frames"]["steady"]["left_out"]
        lines.append(f"left out of the steady frame: {share:.2e} of the tokens' squared norm")
    if "dense" in figures and figures["macs"]:
        ratio = figures["dense"]["macs"] / figures["macs"]
        lines.append(f"{ratio:.3f} times fewer than dense (saves {figures['saving']:.1%})")
    if figures["uncounted"]:
        named = ", ".join(f"{name} ({n} times)" for name, n in figures["uncounted"].items())
        lines.append(f"not counted, no formula: {named}")
    return lines


def _split(figures: dict[str, Any], views: int) -> str:
    embedding = views * figures["patch_embed"]
    rest = views * figures["macs"] - embedding
    return f"{_short(rest)} multiply-adds (the embedding: {_short(embedding)})"


def _short(number: int) -> str:
    for unit, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3f} {sign}"
    return str(number)


if __name__ == "__main__":
    main()
