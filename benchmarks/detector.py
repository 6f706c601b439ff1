"""Time of a whole detector that computes only what changed, part by part, on a real video.

    python benchmarks/detector.py VIDEO CONFIG --k 512 256
    python benchmarks/detector.py VIDEO CONFIG CHECKPOINT --threshold 0.05 --json out.json
    python benchmarks/detector.py VIDEO CONFIG --k 512 --record NAME   # keep the rows

The config is that of the detector without any method. Both detectors share weights, random ones
without a checkpoint, and run in turn in one process, each part timed by itself; times are medians
over the frames after the first. Proposals of random weights say nothing about reuse, so that those
of the second stage are given: a grid of boxes of five sizes, the same in every frame (`still`), or
those over changed pixels moved by two pixels in every frame (`moved`). The total without reuse of
proposals stands beside. Boxes are compared with those of the dense detector: with random weights
they mean little.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import torch
import torchvision
from torch import Tensor, nn

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel import Threshold, TopK, apply_eventful
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.core.eventful.maps.proposals import ProposalMemory
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.testing.models import sharing_weights
from mmvitaccel.video_reader import open_video

STREAM = "video"
SIDES = (32, 64, 128, 256, 512)  # of the proposals, in pixels of a picture whose long edge is 1024


@dataclass
class Frame:
    """One frame on its way through a detector.

    Attributes:
        ms: Milliseconds of each part.
        outs: What the head over maps says, lists of maps.
        levels: The neck's.
        boxes: What is found, with scores.
        macs: Multiply-adds of the model's modules, where they are counted.
    """

    ms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    outs: Any = None
    levels: Any = None
    boxes: Any = None
    macs: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part."""
        start = time.perf_counter()
        yield
        self.ms[name] += 1e3 * (time.perf_counter() - start)


def pictures_of(video: str, size: tuple[int, int], count: int) -> list[Tensor]:
    """The first frames of a video, (3, H, W) uint8, as large as fits into ``size``."""
    found = []
    with open_video(video) as source:
        for frame in source:
            height, width = frame.image.shape[:2]
            scale = min(max(size) / max(height, width), min(size) / min(height, width))
            resized = cv2.resize(frame.image, (round(width * scale), round(height * scale)))
            # reason: OpenMMLab's pictures are BGR, which its preprocessors turn
            found.append(torch.from_numpy(resized[..., ::-1].copy()).permute(2, 0, 1))
            if len(found) == count:
                return found
    raise UserError(f"{video} has {len(found)} frames and {count} are needed; set --frames lower.")


def sample_of(picture: Tensor) -> Any:
    """The data sample of a picture."""
    from mmdet.structures import DetDataSample

    shape = tuple(picture.shape[1:])
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), img_id=0)
    return DetDataSample(metainfo=meta)


def grid_of_boxes(picture: Tensor, count: int) -> Tensor:
    """(N, 4) boxes of five sizes over a picture, as many of each."""
    height, width = picture.shape[1:]
    boxes = []
    for side in (s * max(height, width) / 1024 for s in SIDES):
        rows = max(1, round((count / len(SIDES) * height / width) ** 0.5))
        columns = max(1, count // len(SIDES) // rows)
        y = torch.linspace(0, max(height - side, 0), rows)
        x = torch.linspace(0, max(width - side, 0), columns)
        top, left = (a.flatten() for a in torch.meshgrid(y, x, indexing="ij"))
        boxes.append(torch.stack([left, top, left + side, top + side], 1))
    return torch.cat(boxes)


def moved(boxes: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """The boxes, those over changed pixels by two pixels to the right and the bottom."""
    changed = ((before.float() - now.float()).abs().amax(0) > 24).float()
    sums = torch.nn.functional.pad(changed.cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = changed.shape
    left, right = (boxes[:, i].long().clamp(0, width) for i in (0, 2))
    top, bottom = (boxes[:, i].long().clamp(0, height) for i in (1, 3))
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area = ((right - left) * (bottom - top)).clamp(min=1)
    return boxes + 2 * (inside / area > 0.02)[:, None]


def run_frame(model: nn.Module, picture: Tensor, boxes: Tensor, frame: Frame) -> Frame:
    """Compute a frame part by part."""
    from mmengine.structures import InstanceData

    samples = [sample_of(picture)]
    with frame.part("preprocessing"):
        data = model.data_preprocessor(dict(inputs=[picture], data_samples=samples), False)
    x, metas = data["inputs"], [sample.metainfo for sample in data["data_samples"]]
    with frame.part("backbone"):
        maps = model.backbone(x)
    with frame.part("neck"):
        frame.levels = model.neck(maps)
    head = model.bbox_head if hasattr(model, "bbox_head") else model.rpn_head
    with frame.part("head"):
        frame.outs = head(frame.levels)
    with frame.part("decoding"):
        found = head.predict_by_feat(*frame.outs, batch_img_metas=metas)
    if not hasattr(model, "roi_head"):
        frame.boxes = found[0]
        return frame
    with frame.part("roi_head"):
        given = [InstanceData(bboxes=boxes)]
        frame.boxes = model.roi_head.predict(frame.levels, given, data["data_samples"])[0]
    return frame


def follow(
    model: nn.Module,
    pictures: Sequence[Tensor],
    boxes: Sequence[Tensor],
    stream: Callable[[], Any] = nullcontext,
    count: bool = False,
) -> list[Frame]:
    """The frames of a video through a model, timed or counted."""
    frames = []
    for picture, own in zip(pictures, boxes):
        frame, counter = Frame(), MacsCounter(model) if count else None
        with stream(), counter or nullcontext():
            run_frame(model, picture, own, frame)
        frame.ms["total"] = sum(frame.ms.values())
        if counter is not None:
            report = counter.report()
            frame.macs = {**report.parts(), "total": report.total}
        frames.append(frame)
    return frames


def head_error(plain: nn.Module, handle: EventfulDetectorHandle, last: Frame) -> float:
    """Largest difference of the heads' results to those of the plain heads on the same levels."""
    levels = [level.clone(memory_format=torch.contiguous_format) for level in last.levels]
    head = plain.bbox_head if hasattr(plain, "bbox_head") else plain.rpn_head
    pairs = [pair for ours, theirs in zip(last.outs, head(levels)) for pair in zip(ours, theirs)]
    if "roi_head" in handle.parts:
        memory: ProposalMemory = handle.parts["roi_head"].remembered(STREAM)[0]
        for name, kept in memory.results.items():
            method, _, stage = name.partition(" ")
            first = (int(stage),) if hasattr(plain.roi_head, "num_stages") else ()
            made = getattr(plain.roi_head, method)(*first, levels, kept.boxes)
            pairs += [(kept.values[key], made[key]) for key in kept.values]
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


def compared(found: Any, expected: Any) -> tuple[float, float]:
    """Share of the dense detector's boxes that are found again, and the scores' mean difference."""
    if not len(expected) or not len(found):
        return float(len(expected) == len(found)), 0.0
    overlap = torchvision.ops.box_iou(expected.bboxes, found.bboxes)
    overlap = overlap * (expected.labels[:, None] == found.labels)
    best, place = overlap.max(1)
    hit = best > 0.5
    scores = (expected.scores - found.scores[place])[hit].abs()
    return float(hit.float().mean()), float(scores.mean()) if len(scores) else 0.0


@dataclass(frozen=True)
class Result:
    """One row of the table: a policy, and one way in which proposals come.

    Attributes:
        policy: What the gates let through.
        boxes: ``still`` or ``moved``; ``own`` of a detector of one stage.
        dense_ms: Milliseconds of each part of the dense detector, and ``total``; medians.
        first_ms: Of the eventful detector's first frame.
        steady_ms: Of a later one; medians.
        speedup: Dense total over steady total.
        without_roi_reuse: The same, were all proposals computed.
        first_ratio: First total over dense total.
        dense_gmacs: Multiply-adds of each part of the dense detector, in units of 1e9.
        steady_gmacs: Of a later frame of the eventful one, the mean.
        computed: The share of its work that each part did in the last frame.
        state_mb: Memory of each part for the stream, in MB.
        head_error: See :func:`head_error`, of the last frame.
        matched: Share of the dense detector's boxes of the last frame found at an overlap of 0.5.
        score_difference: Mean absolute difference of their scores.
        frames: How many were timed.
    """

    policy: str
    boxes: str
    dense_ms: dict[str, float]
    first_ms: dict[str, float]
    steady_ms: dict[str, float]
    speedup: float
    without_roi_reuse: float
    first_ratio: float
    dense_gmacs: dict[str, float]
    steady_gmacs: dict[str, float]
    computed: dict[str, float]
    state_mb: dict[str, float]
    head_error: float
    matched: float
    score_difference: float
    frames: int


def flat(row: Result) -> dict[str, Any]:
    """A row without figures in figures, ``steady_ms_neck`` and the like."""
    found: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            found.update({f"{name}_{part}": number for part, number in value.items()})
        else:
            found[name] = value
    return found


def _medians(frames: Sequence[Frame]) -> dict[str, float]:
    return {name: median(frame.ms[name] for frame in frames) for name in frames[0].ms}


def measure(
    plain: nn.Module, policy: Any, name: str, pictures: list[Tensor], boxes: list
) -> Result:
    """Time, count and compare one policy."""
    model = sharing_weights(plain)
    handle = apply_eventful(model, policy, parts="all")

    def stream() -> Any:
        return handle.stream(STREAM)

    dense: list[Frame] = []
    ours: list[Frame] = []
    for picture, own in zip(pictures, boxes):
        ours += follow(model, [picture], [own], stream)
        dense += follow(plain, [picture], [own])
    steady, whole = _medians(ours[1:]), _medians(dense[1:])
    error, computed = head_error(plain, handle, ours[-1]), handle.computed()
    state = {part: own.memory_bytes / 1e6 for part, own in handle.parts.items()}
    matched, score = compared(ours[-1].boxes, dense[-1].boxes)
    handle.reset()
    counted = [frame.macs for frame in follow(model, pictures, boxes, stream, count=True)][1:]
    dense_macs = follow(plain, pictures[:1], boxes[:1], count=True)[0].macs
    without = steady["total"] - steady.get("roi_head", 0.0) + whole.get("roi_head", 0.0)
    handle.remove()
    return Result(
        policy=repr(policy),
        boxes=name,
        dense_ms=whole,
        first_ms=dict(ours[0].ms),
        steady_ms=steady,
        speedup=whole["total"] / steady["total"],
        without_roi_reuse=whole["total"] / without,
        first_ratio=ours[0].ms["total"] / whole["total"],
        dense_gmacs={part: n / 1e9 for part, n in dense_macs.items()},
        steady_gmacs={part: mean(m.get(part, 0) for m in counted) / 1e9 for part in dense_macs},
        computed=computed,
        state_mb=state,
        head_error=error,
        matched=matched,
        score_difference=score,
        frames=len(pictures) - 1,
    )


def boxes_of(plain: nn.Module, pictures: list[Tensor]) -> dict[str, list[Tensor]]:
    """Proposals of each frame, in each way in which they come."""
    if not hasattr(plain, "roi_head"):
        return {"own": [torch.zeros(0, 4)] * len(pictures)}
    still = grid_of_boxes(pictures[0], plain.rpn_head.test_cfg.max_per_img)
    moving = [still]
    for before, now in zip(pictures, pictures[1:]):
        moving.append(moved(moving[-1], before, now))
    return {"still": [still] * len(pictures), "moved": moving}


def show(row: Result) -> None:
    """Print a row, a line for each part."""
    print(f"\n{row.policy}, proposals {row.boxes}: {row.speedup:.2f}x of dense", end="")
    print(f" ({row.without_roi_reuse:.2f}x without reuse of proposals)", end="")
    print(f"; first frame {row.first_ratio:.2f} of dense; heads differ by {row.head_error:.1e}")
    print(f"boxes matched {row.matched:.3f}, scores differ by {row.score_difference:.4f}")
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
    """Measure, print the tables and write the figures if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("config", help="of a detector of mmdet, without a method")
    parser.add_argument("checkpoint", nargs="?", help="random weights without")
    parser.add_argument("--k", type=int, nargs="+", default=[], help="tokens and cells let through")
    parser.add_argument("--threshold", type=float, nargs="+", default=[], help="or an error")
    parser.add_argument("--size", type=int, nargs=2, metavar=("LONG", "SHORT"), default=(1024, 640))
    parser.add_argument("--frames", type=int, default=8, help="timed, after the first")
    parser.add_argument("--boxes", nargs="+", choices=("still", "moved"), help="both if not")
    parser.add_argument("--bfloat16", action="store_true", help="both detectors under autocast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    add_record_option(parser)
    args = parser.parse_args(argv)
    policies = [TopK(k) for k in args.k] + [Threshold(t) for t in args.threshold]
    if not policies or args.frames < 1:
        raise UserError("give --k or --threshold, and --frames of 1 or more.")
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    plain = build_model(load_config(args.config, {})).eval()
    if args.checkpoint:
        check_checkpoint(plain, args.checkpoint)
    pictures = pictures_of(args.video, tuple(args.size), args.frames + 1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    rows = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
        follow(plain, pictures[:1], boxes_of(plain, pictures[:1]).popitem()[1])
        for policy in policies:
            for name, boxes in boxes_of(plain, pictures).items():
                if name in (args.boxes or (name,)):
                    rows.append(measure(plain, policy, name, pictures, boxes))
                    show(rows[-1])
    recording.save([flat(row) for row in rows])
    if args.json:
        args.json.write_text(json.dumps([flat(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
