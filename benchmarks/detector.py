"""Time of a whole eventful detector against the dense one, part by part, on a real video.

    python benchmarks/detector.py VIDEO CONFIG --k 512 256
    python benchmarks/detector.py VIDEO CONFIG CHECKPOINT --threshold 0.05 --json out.json
    python benchmarks/detector.py VIDEO CONFIG --k 512 --bfloat16
    python benchmarks/detector.py VIDEO CONFIG --threshold 0 --changes rectangle rectangles
    python benchmarks/detector.py VIDEO CONFIG --k 512 --record NAME   # keep the rows

CONFIG is that of a detector without any method. Both detectors share weights, which are random
without a checkpoint. They run alternately in one process, and each part is timed separately. Times
are medians over the frames after the first. The dense detector runs in torch and, if installed, in
OpenVINO with the same precision, which computes backbone, neck and dense head and leaves the rest
to torch. Ratios are relative to the faster of the two.

The proposals of random weights say nothing about reuse, so the second stage gets prescribed ones: a
grid of boxes in five sizes, which is the same in every frame (`still`) or of which those over
changed pixels move by two pixels per frame (`moved`). The total without reuse of proposals is
printed too. Boxes are compared with those of the dense detector, which means little with random
weights.

``--changes`` replaces the backbone's maps at the input of the neck; the backbone still runs. On
each level, the cells in the same part of the picture change: a tenth of the picture in one
rectangle (``rectangle``), ten squares of 7 x 7 cells of the second level (``rectangles``), a random
tenth of the cells of each level (``scattered``), ``everything`` or ``nothing``. The scores that are
decoded are then fixed, because the time of decoding depends on how many of them are above the
threshold, which is arbitrary with random weights.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from detector_runs.cases import cases
from detector_runs.frames import follow, in_openvino
from detector_runs.inputs import CHANGES, pictures_of
from detector_runs.results import Result, flat, measure

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel import Threshold, TopK
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


def show(row: Result) -> None:
    """Print a row, with one line for each part."""
    print(f"\n{row.policy}, {row.dtype}, changes of {row.changes}, ", end="")
    print(f"proposals {row.boxes}: {row.speedup:.2f}x of dense", end="")
    print(f" ({row.without_roi_reuse:.2f}x without reuse of proposals)", end="")
    print(f"; first frame {row.first_ratio:.2f} of dense; heads differ by {row.head_error:.1e}")
    print(f"boxes matched {row.matched:.3f}, scores differ by {row.score_difference:.4f}", end="")
    openvino_ms = "-" if row.openvino_ms is None else f"{row.openvino_ms:.0f} ms"
    error = "" if row.openvino_error is None else f", its maps differ by {row.openvino_error:.1e}"
    print(f"; dense in OpenVINO {openvino_ms}{error}")
    print(f"{'part':<14}{'dense ms':>10}{'first ms':>10}{'steady ms':>10}{'GMACs':>16}{'MB':>8}")
    heads = dict(head="bbox_head" if "bbox_head" in row.dense_gmacs else "rpn_head")
    for part, dense in row.dense_ms.items():
        own = heads.get(part, part)
        macs = f"{row.dense_gmacs.get(own, 0):.1f} {row.steady_gmacs.get(own, 0):.1f}"
        state = sum(row.state_mb.values()) if part == "total" else row.state_mb.get(own, 0)
        times = f"{dense:>10.1f}{row.first_ms[part]:>10.1f}{row.steady_ms[part]:>10.1f}"
        print(f"{part:<14}{times}{macs:>16}{state:>8.0f}", flush=True)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("config", help="config of an mmdet detector, without a method")
    parser.add_argument("checkpoint", nargs="?", help="by default, random weights")
    parser.add_argument("--k", type=int, nargs="+", default=[], help="tokens and cells that pass")
    parser.add_argument(
        "--threshold", type=float, nargs="+", default=[], help="error above which they pass"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("LONG", "SHORT"), default=(1024, 640))
    parser.add_argument("--frames", type=int, default=8, help="timed frames, after the first")
    parser.add_argument(
        "--boxes",
        nargs="+",
        default=[],
        choices=("still", "moved"),
        help="proposals; default: both",
    )
    parser.add_argument(
        "--changes", nargs="+", default=[], choices=CHANGES, help="prescribed changes of the maps"
    )
    parser.add_argument("--bfloat16", action="store_true", help="both detectors under autocast")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    add_record_option(parser)
    args = parser.parse_args(argv)
    policies = [TopK(k) for k in args.k] + [Threshold(t) for t in args.threshold]
    if not policies or args.frames < 1:
        raise UserError("give --k or --threshold, and at least 1 for --frames.")
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    plain = build_model(load_config(args.config, {})).eval()
    if args.checkpoint:
        check_checkpoint(plain, args.checkpoint)
    pictures = pictures_of(args.video, tuple(args.size), args.frames + 1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    rows = []
    with torch.no_grad():
        network = in_openvino(plain, pictures[0], "bf16" if args.bfloat16 else "f32")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
        for policy in policies:
            for case in cases(plain, pictures, args.boxes, args.changes):
                follow(plain, case.video[:1])
                rows.append(measure(plain, policy, case, network))
                show(rows[-1])
    recording.save([flat(row) for row in rows])
    if args.json:
        args.json.write_text(json.dumps([flat(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
