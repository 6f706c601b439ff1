"""Error of dense heads that keep the GroupNorm statistics of the last complete frame.

    python benchmarks/held_norms.py VIDEO
    python benchmarks/held_norms.py VIDEO --heads fcos --threshold 0.05 --every 0 10
    python benchmarks/held_norms.py VIDEO --record     # keep the rows

The detectors are mmdet's FCOS and ATSS with a ResNet-50 and random weights. The backbone is
computed completely; neck and head recompute what changed by more than a threshold. In every frame,
the head is compared with the plain head on the same levels: the L2 norm of the difference of all
maps, relative to that of the plain head's maps. For comparison, the table has the error of a head
that keeps its results of the last complete frame, and the multiply-adds of the head.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel import Threshold, apply_eventful
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.testing.models import sharing_weights
from mmvitaccel.video.first_frames import first_frames

CONFIGS = {
    "fcos": "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "atss": "mmdet::atss/atss_r50_fpn_1x_coco.py",
}
STREAM = "video"


@dataclass(frozen=True)
class Row:
    """One head, refreshed at one interval.

    Attributes:
        head: A key of :data:`CONFIGS`.
        every: Interval of complete frames; 0 if only the first frame is complete.
        error: Mean error of the frames that are not complete.
        largest: Largest error of these frames.
        whole_error: Largest error of complete frames.
        kept_error: Mean error of results that are kept from the last complete frame.
        dense_gmacs: Multiply-adds of the plain head in 1e9.
        steady_gmacs: Mean multiply-adds of frames that are not complete, in 1e9.
        frames: Number of frames that are not complete.
    """

    head: str
    every: int
    error: float
    largest: float
    whole_error: float
    kept_error: float
    dense_gmacs: float
    steady_gmacs: float
    frames: int


def together(outs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Concatenate all outputs of a head for a frame, (N,)."""
    return torch.cat([x.flatten().double() for kind in outs for x in kind])


def apart(found: Tensor, expected: Tensor) -> float:
    """Relative difference."""
    return float((found - expected).norm() / expected.norm())


def measure(head: str, plain: nn.Module, maps: Sequence[Any], policy: Any, every: int) -> Row:
    """Process a video, given as the backbone's maps of each frame."""
    model = sharing_weights(plain)
    handle = apply_eventful(model, policy, parts=("neck", "bbox_head"), group_norm="held")
    errors, kept, whole, costs, last, dense = [], [], [], [], None, 0.0
    for number, given in enumerate(maps):
        is_whole = number == 0 or (every > 0 and number % every == 0)
        if is_whole:
            handle.refresh()
        with handle.stream(STREAM, number), MacsCounter(model.bbox_head) as counter:
            levels = model.neck(given)
            found = together(model.bbox_head(levels))
        cost = counter.report().total / 1e9
        levels = [level.clone(memory_format=torch.contiguous_format) for level in levels]
        expected = together(plain.bbox_head(levels))
        if is_whole:
            last, dense = expected, cost
            whole.append(apart(found, expected))
            continue
        errors.append(apart(found, expected))
        kept.append(apart(last, expected))
        costs.append(cost)
    return Row(
        head,
        every,
        mean(errors),
        max(errors),
        max(whole),
        mean(kept),
        dense,
        mean(costs),
        len(errors),
    )


def show(row: Row) -> None:
    """Print a row."""
    when = f"whole every {row.every} frames" if row.every else "first frame whole"
    print(
        f"{row.head}, {when}: error {row.error:.1e}, at most {row.largest:.1e}, of whole frames "
        f"{row.whole_error:.0e}; of kept results {row.kept_error:.1e}; "
        f"{row.steady_gmacs:.1f} of {row.dense_gmacs:.1f} G multiply-adds",
        flush=True,
    )


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--heads", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument(
        "--threshold", type=float, default=0.1, help="relative error above which cells pass"
    )
    parser.add_argument(
        "--every",
        type=int,
        nargs="+",
        default=[0, 4],
        help="interval of complete frames; 0 for none",
    )
    parser.add_argument("--size", type=int, default=480, help="side of a frame, a multiple of 32")
    parser.add_argument("--frames", type=int, default=12)
    add_record_option(parser)
    args = parser.parse_args(argv)
    if args.frames < 2 or any(every == 1 or every < 0 for every in args.every):
        raise UserError("give at least 2 for --frames, and 0 or at least 2 for --every.")
    recording = Recording(args.record, __file__, argv)
    rows = []
    for head in args.heads:
        torch.manual_seed(0)
        plain = build_model(load_config(CONFIGS[head], {})).eval()
        with torch.inference_mode():
            maps = [plain.backbone(x) for x in first_frames(args.video, args.size, args.frames)]
            for every in args.every:
                rows.append(measure(head, plain, maps, Threshold(args.threshold), every))
                show(rows[-1])
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
