"""Count the multiply-adds that a config's model really does, module by module.

The model runs once on random pixels, in eval mode, with untrained weights; for a detector
``forward(mode='tensor')``: backbone, neck and heads on the padded image. Not in it: the data
preprocessor, decoding of boxes and suppression (a two-stage detector runs its second stage on what
its first one proposes for such pixels). A recognizer's figure is of one view; how many views its
test pipeline takes of one video is said beside it. One multiply-add counts as one; ``flops`` are
twice that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmvitaccel  # noqa: F401  (closes the gaps of the stack before mmdet is imported)
from mmvitaccel.engine.config import add_config_arguments, load_config
from mmvitaccel.engine.errors import UserError, one_sentence_errors
from mmvitaccel.engine.flops import count_config
from mmvitaccel.engine.session import own_state


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Count a model's multiply-adds and parameters")
    add_config_arguments(parser)
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar=("H", "W"),
        help="input size in pixels, one number for a square; default: the test pipeline's",
    )
    parser.add_argument("--depth", type=int, default=1, help="how deep the module names go")
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON; - for stdout, and nothing else"
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Count, and print a table or JSON."""
    args = parse_args(argv)
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: the folder does not exist; make it first.")
    # reason: OpenMMLab logs to stdout, which is to hold the figures alone.
    with contextlib.redirect_stdout(sys.stderr), own_state():
        cfg = load_config(args.config, args.cfg_options)
        figures = count_config(cfg, _size(args.shape), args.depth)
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
    dense = figures.get("dense")
    lines = [f"input {' x '.join(map(str, figures['input_shape']))}", ""]
    rows = [*figures["modules"].items(), ("total", figures)]
    width = max(len(name) for name, _ in rows)
    lines.append(f"{'module':{width}}  {'params':>12}  {'multiply-adds':>18}")
    for name, row in rows:
        line = f"{name:{width}}  {row['params']:>12,}  {row['macs']:>18,}"
        if dense:
            of = dense if name == "total" else dense["modules"][name]
            line += f"  of {of['macs']:>18,} dense"
        lines.append(line)
    totals = [_short(figures[key]) for key in ("macs", "flops", "params")]
    lines.append("\n{} multiply-adds, {} FLOPs, {} parameters".format(*totals))
    if figures["views"] > 1:
        lines.append(f"for one view; the test pipeline takes {figures['views']} of each sample")
    if dense and figures["macs"]:
        ratio = dense["macs"] / figures["macs"]
        lines.append(f"{ratio:.3f} times fewer than dense (saves {figures['saving']:.1%})")
    if figures["uncounted"]:
        named = ", ".join(f"{name} ({n} times)" for name, n in figures["uncounted"].items())
        lines.append(f"not counted, no formula: {named}")
    return "\n".join(lines)


def _short(number: int) -> str:
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3f} {sign}"
    return str(number)


if __name__ == "__main__":
    main()
