"""Time of ViTDet's feature pyramid with EventfulNeck against the plain one, on a real video.

    python benchmarks/eventful_neck.py VIDEO              # 1024 and ViTDet-B, some five minutes
    python benchmarks/eventful_neck.py VIDEO --quick      # small: that everything runs
    python benchmarks/eventful_neck.py VIDEO --k 512 --json out.json
    python benchmarks/eventful_neck.py VIDEO --record     # keep the rows in benchmarks/results

The maps come from an eventful ViTDet with fixed random weights, in which k tokens pass each gate.
The k cells of each map that changed most pass to the pyramid. Both pyramids share weights and run
alternately in one process; times are medians over the frames after the first. The plain one is
timed on maps in ViTDet's memory format and in channels-last, and the faster time counts. The table
also has the ratio of multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from mmvitaccel import SimpleFPN, TopK, apply_eventful, apply_eventful_neck
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.video.first_frames import first_frames


@dataclass(frozen=True)
class Result:
    """One row of the table. Times are medians in milliseconds per frame, except ``first_ms``.

    Attributes:
        size: Side of the frames in pixels.
        k: Cells that pass.
        dense_ms: Time of the plain pyramid, in the faster memory format.
        first_ms: Time of the eventful pyramid's first frame.
        steady_ms: Time of a later frame.
        speedup: ``dense_ms / steady_ms``.
        macs_ratio: Multiply-adds of the plain pyramid over the mean of later frames.
        error: Largest error of a level in the last frame: norm of the difference to the plain
            pyramid on the same map, over the norm of its level.
        state_mb: Memory of the stream in MB.
        frames: Number of timed frames.
    """

    size: int
    k: int
    dense_ms: float
    first_ms: float
    steady_ms: float
    speedup: float
    macs_ratio: float
    error: float
    state_mb: float
    frames: int


def make_maps(frames: list[Tensor], size: int, k: int, **config: int) -> list[Tensor]:
    """Compute the maps (1, C, H, W) of the frames with an eventful ViTDet."""
    torch.manual_seed(0)
    backbone = vitdet(img_size=size, **config).eval()
    apply_eventful(backbone, TopK(k))
    return [backbone(frame)[0] for frame in frames]


def measure(neck: nn.Module, maps: list[Tensor], size: int, k: int) -> Result:
    """Time both pyramids on the maps, count the eventful one, and compare the last levels."""
    eventful = sharing_weights(neck)
    handle = apply_eventful_neck(eventful, TopK(k))
    start = time.perf_counter()
    eventful(maps[0])
    first = time.perf_counter() - start
    later = {
        "as given": maps[1:],
        "channels last": [x.contiguous(memory_format=torch.channels_last) for x in maps[1:]],
    }
    steps = {name: iter(inputs) for name, inputs in later.items()} | {"eventful": iter(maps[1:])}
    runs = {
        name: (lambda n=name, m=eventful if name == "eventful" else neck: m(next(steps[n])))
        for name in steps
    }
    seconds = {name: median(s) for name, s in alternate(runs, len(maps) - 1, warmup=0).items()}
    dense = min(seconds[name] for name in later)
    state = handle.memory_bytes
    handle.reset()
    counter, macs = MacsCounter(), []
    for x in maps:
        with counter:
            levels = eventful(x)
        macs.append(counter.report().total)
    with counter:
        expected = neck(maps[-1])
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(levels, expected)]
    return Result(
        size=size,
        k=k,
        dense_ms=1e3 * dense,
        first_ms=1e3 * first,
        steady_ms=1e3 * seconds["eventful"],
        speedup=dense / seconds["eventful"],
        macs_ratio=counter.report().total * len(macs[1:]) / sum(macs[1:]),
        error=max(errors),
        state_mb=state / 1e6,
        frames=len(maps) - 1,
    )


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--quick", action="store_true", help="a small model at 128, a few seconds")
    parser.add_argument("--size", type=int, default=1024, help="side of the frames, in pixels")
    parser.add_argument("--k", type=int, nargs="+", help="cells that pass; default: 512 and 256")
    parser.add_argument("--frames", type=int, default=12, help="timed frames, after the first")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    small = dict(embed_dim=96, num_heads=3) if args.quick else {}
    size, budgets = (128, args.k or [8]) if args.quick else (args.size, args.k or [512, 256])
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("size    k  dense ms  first ms  steady ms  speedup  allowed    error  state MB")
    results = []
    with torch.inference_mode():
        frames = first_frames(args.video, size, args.frames + 1)
        torch.manual_seed(0)
        neck = SimpleFPN(in_channels=small.get("embed_dim", 768)).eval()
        for k in budgets:
            row = measure(neck, make_maps(frames, size, k, **small), size, k)
            results.append(row)
            print(
                f"{row.size:>4}{row.k:>5}{row.dense_ms:>10.1f}{row.first_ms:>10.1f}"
                f"{row.steady_ms:>11.1f}{row.speedup:>8.2f}x{row.macs_ratio:>8.2f}x"
                f"{row.error:>9.4f}{row.state_mb:>10.0f}",
                flush=True,
            )
    recording.save([asdict(row) for row in results])
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
