"""Time of a whole detector that computes only what changed, part by part, on a real video.

    python benchmarks/detector.py VIDEO CONFIG --k 512 256
    python benchmarks/detector.py VIDEO CONFIG CHECKPOINT --threshold 0.05 --json out.json
    python benchmarks/detector.py VIDEO CONFIG --k 512 --bfloat16
    python benchmarks/detector.py VIDEO CONFIG --threshold 0 --changes rectangle rectangles
    python benchmarks/detector.py VIDEO CONFIG --k 512 --record NAME   # keep the rows

The config is that of the detector without any method. Both detectors share weights, random ones
without a checkpoint, and run in turn in one process, each part timed by itself; times are medians
over the frames after the first. The dense detector runs in torch and, where it is installed, in
OpenVINO in the same precision, which computes backbone, neck and the head over maps and leaves the
rest to torch; ratios are against the faster of the two. Proposals of random weights say nothing
about reuse, so that those of the second stage are given: a grid of boxes of five sizes, the same in
every frame (`still`), or those over changed pixels moved by two pixels in every frame (`moved`).
The total without reuse of proposals stands beside. Boxes are compared with those of the dense
detector: with random weights they mean little.

With ``--changes`` the neck is given maps that change as told, on each level the cells within the
same part of the picture, in place of the backbone's, which runs all the same. ``rectangle`` is a
tenth of the picture, ``rectangles`` are ten of 7 x 7 cells of the second level, ``scattered`` is a
tenth of the cells of each level at random, ``everything`` and ``nothing`` are what they say. The
scores that one-stage detectors decode are then fixed ones: how many random weights put above the
threshold has no meaning, and it decides how long decoding takes.
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
from mmvitaccel.testing.baselines import openvino
from mmvitaccel.testing.models import sharing_weights
from mmvitaccel.video_reader import open_video

STREAM = "video"
CHANGES = ("rectangle", "rectangles", "scattered", "everything", "nothing")
# Logits of fixed scores, normally distributed: about one of a thousand is above 0.05, as of trained
# detectors.
SCORES_MEAN = -6.0
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


def preprocessed(model: nn.Module, picture: Tensor) -> dict[str, Any]:
    """What the detector's preprocessor makes of a picture, and its data sample."""
    given = dict(inputs=[picture], data_samples=[sample_of(picture)])
    return model.data_preprocessor(given, False)


def head_over_maps(model: nn.Module) -> nn.Module:
    """The head of a one-stage detector, or the first one of two stages."""
    return model.bbox_head if hasattr(model, "bbox_head") else model.rpn_head


class UpToHead(nn.Module):
    """The part of a detector that OpenVINO computes.

    Args:
        model: The detector.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, head_over_maps(model)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) to the neck's levels and what the head says of them, in a list."""
        levels = self.neck(self.backbone(x))
        return [*levels, *(of_level for kind in self.head(levels) for of_level in kind)]


Network = Callable[[Tensor], list[Tensor]]


def in_openvino(plain: nn.Module, picture: Tensor, precision: str) -> Network | None:
    """The detector up to its head over maps; None where OpenVINO is missing or cannot run it so."""
    try:
        return openvino(UpToHead(plain), preprocessed(plain, picture)["inputs"], precision)
    except UserError as error:
        print(f"without OpenVINO: {error}", flush=True)
        return None


def changed_cells(change: str, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Which of (H, W) cells of the second level change in a frame, as bool."""
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.bool)
    if change == "everything":
        return ~mask
    if change == "scattered":
        return torch.rand(height, width, generator=generator) < 0.1
    if change == "rectangle":
        rows, columns = round(height * 0.1**0.5), round(width * 0.1**0.5)
        count = 1
    elif change == "rectangles":
        rows, columns, count = min(7, height), min(7, width), 10
    else:
        count = rows = columns = 0
    for _ in range(count):
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        mask[top : top + rows, left : left + columns] = True
    return mask


def changing_maps(maps: Sequence[Tensor], change: str, count: int) -> list[list[Tensor]]:
    """The backbone's maps in so many frames, each with some of its cells changed.

    Args:
        maps: Of one frame, (1, C, h, w) each.
        change: One of ``CHANGES``.
        count: Frames.
    """
    generator = torch.Generator().manual_seed(0)
    frames = [list(maps)]
    size = maps[min(1, len(maps) - 1)].shape[2:]
    for _ in range(count - 1):
        mask = changed_cells(change, size, generator)[None, None].float()
        made = []
        for before in frames[-1]:
            if change == "scattered":
                own = torch.rand(1, 1, *before.shape[2:], generator=generator) < 0.1
            else:
                own = torch.nn.functional.interpolate(mask, before.shape[2:]) > 0
            made.append(before + own * torch.randn(before.shape, generator=generator))
        frames.append(made)
    return frames


def fixed_scores(scores: Sequence[Tensor]) -> list[Tensor]:
    """Logits of the shapes of a head's, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(x.shape, generator=generator).to(x.dtype).add_(SCORES_MEAN) for x in scores]


@dataclass(frozen=True)
class Given:
    """What a frame is computed from.

    Attributes:
        picture: (3, H, W) uint8.
        boxes: Proposals of the second stage, (N, 4).
        maps: The neck is given these in place of the backbone's; None for its own.
        scores: Those are decoded in place of the head's; None for its own.
    """

    picture: Tensor
    boxes: Tensor
    maps: Sequence[Tensor] | None = None
    scores: Sequence[Tensor] | None = None


def run_frame(model: nn.Module, given: Given, frame: Frame, network: Network | None = None) -> None:
    """Compute a frame part by part, or up to the head over maps in OpenVINO."""
    from mmengine.structures import InstanceData

    with frame.part("preprocessing"):
        data = preprocessed(model, given.picture)
    x, metas = data["inputs"], [sample.metainfo for sample in data["data_samples"]]
    head = head_over_maps(model)
    if network is None:
        with frame.part("backbone"):
            maps = model.backbone(x)
        with frame.part("neck"):
            frame.levels = model.neck(maps if given.maps is None else given.maps)
        with frame.part("head"):
            frame.outs = head(frame.levels)
    else:
        with frame.part("up to the head"):
            outs = network(x)
        num_levels = len(outs) // 3
        levels, *frame.outs = (outs[i : i + num_levels] for i in range(0, len(outs), num_levels))
        frame.levels = tuple(levels)
    decoded = list(frame.outs)
    if given.scores is not None:
        decoded[0] = given.scores
    with frame.part("decoding"):
        found = head.predict_by_feat(*decoded, batch_img_metas=metas)
    if not hasattr(model, "roi_head"):
        frame.boxes = found[0]
        return
    with frame.part("roi_head"):
        proposals = [InstanceData(bboxes=given.boxes)]
        frame.boxes = model.roi_head.predict(frame.levels, proposals, data["data_samples"])[0]


def follow(
    model: nn.Module,
    video: Sequence[Given],
    stream: Callable[[], Any] = nullcontext,
    count: bool = False,
    network: Network | None = None,
) -> list[Frame]:
    """The frames of a video through a model, timed or counted."""
    frames = []
    for given in video:
        frame, counter = Frame(), MacsCounter(model) if count else None
        with stream(), counter or nullcontext():
            run_frame(model, given, frame, network)
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
        changes: How maps change, or ``video``.
        dtype: In which both compute.
        dense_ms: Milliseconds of each part of the dense detector in torch, and ``total``; medians.
        openvino_ms: Total of the one in OpenVINO, the median; None where it did not run.
        openvino_error: Largest difference of its maps to torch's.
        first_ms: Of the eventful detector's first frame.
        steady_ms: Of a later one; medians.
        speedup: Total of the faster dense one over steady total.
        without_roi_reuse: The same, were all proposals computed.
        first_ratio: First total over dense total in torch.
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
    changes: str
    dtype: str
    dense_ms: dict[str, float]
    openvino_ms: float | None
    openvino_error: float | None
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


@dataclass(frozen=True)
class Case:
    """A video as one table shows it.

    Attributes:
        boxes: How its proposals come.
        changes: How its maps do.
        video: Its frames.
    """

    boxes: str
    changes: str
    video: Sequence[Given]


def measure(plain: nn.Module, policy: Any, case: Case, network: Network | None) -> Result:
    """Time, count and compare one policy."""
    video = case.video
    model = sharing_weights(plain)
    handle = apply_eventful(model, policy, parts="all")

    def stream() -> Any:
        return handle.stream(STREAM)

    dense: list[Frame] = []
    ours: list[Frame] = []
    networks: list[Frame] = []
    for given in video:
        ours += follow(model, [given], stream)
        dense += follow(plain, [given])
        if network is not None:
            networks += follow(plain, [given], network=network)
    steady, whole = _medians(ours[1:]), _medians(dense[1:])
    openvino_ms, openvino_error, fastest = None, None, whole["total"]
    if network is not None:
        openvino_ms = median(frame.ms["total"] for frame in networks[1:])
        openvino_error = None if case.changes != "video" else _difference(networks[-1], dense[-1])
        fastest = min(fastest, openvino_ms)
    error, computed = head_error(plain, handle, ours[-1]), handle.computed()
    state = {part: own.memory_bytes / 1e6 for part, own in handle.parts.items()}
    matched, score = compared(ours[-1].boxes, dense[-1].boxes)
    handle.reset()
    counted = [frame.macs for frame in follow(model, video, stream, count=True)][1:]
    dense_macs = follow(plain, video[:1], count=True)[0].macs
    without = steady["total"] - steady.get("roi_head", 0.0) + whole.get("roi_head", 0.0)
    handle.remove()
    return Result(
        policy=repr(policy),
        boxes=case.boxes,
        changes=case.changes,
        dtype=str(ours[-1].outs[0][0].dtype).removeprefix("torch."),
        dense_ms=whole,
        openvino_ms=openvino_ms,
        openvino_error=openvino_error,
        first_ms=dict(ours[0].ms),
        steady_ms=steady,
        speedup=fastest / steady["total"],
        without_roi_reuse=fastest / without,
        first_ratio=ours[0].ms["total"] / whole["total"],
        dense_gmacs={part: n / 1e9 for part, n in dense_macs.items()},
        steady_gmacs={part: mean(m.get(part, 0) for m in counted) / 1e9 for part in dense_macs},
        computed=computed,
        state_mb=state,
        head_error=error,
        matched=matched,
        score_difference=score,
        frames=len(video) - 1,
    )


def _difference(one: Frame, other: Frame) -> float:
    """Largest difference of what two heads say."""
    pairs = [pair for kinds in zip(one.outs, other.outs) for pair in zip(*kinds)]
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs)


def boxes_of(plain: nn.Module, pictures: list[Tensor]) -> dict[str, list[Tensor]]:
    """Proposals of each frame, in each way in which they come."""
    if not hasattr(plain, "roi_head"):
        return {"own": [torch.zeros(0, 4)] * len(pictures)}
    still = grid_of_boxes(pictures[0], plain.rpn_head.test_cfg.max_per_img)
    moving = [still]
    for before, now in zip(pictures, pictures[1:]):
        moving.append(moved(moving[-1], before, now))
    return {"still": [still] * len(pictures), "moved": moving}


def cases(
    plain: nn.Module, pictures: list[Tensor], boxes: Sequence[str], changes: Sequence[str]
) -> Iterator[Case]:
    """Each way in which proposals come and maps change; of the ways of boxes all, if none given."""
    for name, own in boxes_of(plain, pictures).items():
        if name not in (boxes or (name,)):
            continue
        if not changes:
            yield Case(name, "video", [Given(*each) for each in zip(pictures, own)])
        for change in changes:
            frame = Frame()
            run_frame(plain, Given(pictures[0], own[0]), frame)
            maps = plain.backbone(preprocessed(plain, pictures[0])["inputs"])
            scores = fixed_scores(frame.outs[0])
            yield Case(
                name,
                change,
                [
                    Given(pictures[0], boxes, changed, scores)
                    for boxes, changed in zip(own, changing_maps(maps, change, len(pictures)))
                ],
            )


def show(row: Result) -> None:
    """Print a row, a line for each part."""
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
    parser.add_argument(
        "--boxes", nargs="+", default=[], choices=("still", "moved"), help="both if not"
    )
    parser.add_argument(
        "--changes", nargs="+", default=[], choices=CHANGES, help="of maps, in place of a video's"
    )
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
