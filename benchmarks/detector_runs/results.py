"""Results of the benchmark of detectors: times, multiply-adds, errors and memory of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import torch
import torchvision
from torch import nn

from detector_runs.cases import Case
from detector_runs.frames import Frame, Network, follow
from mmvitaccel import apply_eventful
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.core.eventful.maps.proposals import ProposalMemory
from mmvitaccel.testing.models import sharing_weights

STREAM = "video"


@dataclass(frozen=True)
class Result:
    """One row of the table: one policy on one case. Times are in milliseconds a frame.

    Attributes:
        policy: Policy of the gates.
        boxes: Proposals: ``still``, ``moved``, or ``own`` for a one-stage detector.
        changes: Changes of the feature maps, or ``video``.
        dtype: Data type in which both detectors compute.
        dense_ms: Median time of each part of the dense detector in torch, and ``total``.
        openvino_ms: Median total time of the dense detector in OpenVINO; None if it did not run.
        openvino_error: Largest absolute difference of its head outputs to torch's; None if it did
            not run or the maps are not those of the video.
        first_ms: Time of each part in the first frame of the eventful detector.
        steady_ms: Median time of each part in its later frames.
        speedup: Total time of the faster dense detector over ``steady_ms``.
        without_roi_reuse: The same if all proposals were computed.
        first_ratio: Total of ``first_ms`` over that of ``dense_ms``.
        dense_gmacs: Multiply-adds of each part of the dense detector, in 1e9.
        steady_gmacs: Mean multiply-adds of the later frames of the eventful detector, in 1e9.
        computed: Share of its work that each part did in the last frame.
        state_mb: Memory of each part for the stream, in MB.
        head_error: See :func:`head_error`, for the last frame.
        matched: Share of the dense detector's boxes in the last frame that are found with an IoU
            above 0.5.
        score_difference: Mean absolute difference of the scores of these boxes.
        frames: Number of timed frames.
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
    """Flatten a row: ``steady_ms`` of the neck becomes ``steady_ms_neck``."""
    found: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            found.update({f"{name}_{part}": number for part, number in value.items()})
        else:
            found[name] = value
    return found


def head_error(plain: nn.Module, handle: EventfulDetectorHandle, last: Frame) -> float:
    """Largest absolute difference between the eventful heads and plain heads on the same levels."""
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
    """Compare detections with those of the dense detector.

    Returns:
        The share of the expected boxes that are found, and the mean difference of their scores.
    """
    if not len(expected) or not len(found):
        return float(len(expected) == len(found)), 0.0
    overlap = torchvision.ops.box_iou(expected.bboxes, found.bboxes)
    overlap = overlap * (expected.labels[:, None] == found.labels)
    best, place = overlap.max(1)
    hit = best > 0.5
    scores = (expected.scores - found.scores[place])[hit].abs()
    return float(hit.float().mean()), float(scores.mean()) if len(scores) else 0.0


def measure(plain: nn.Module, policy: Any, case: Case, network: Network | None) -> Result:
    """Measure one policy on one case: time, multiply-adds, memory and errors.

    Args:
        plain: The dense detector.
        policy: Policy of the gates.
        case: The case.
        network: The dense detector up to its head in OpenVINO; None to leave it out.
    """
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
    """Largest absolute difference of the head outputs of two frames."""
    pairs = [pair for kinds in zip(one.outs, other.outs) for pair in zip(*kinds)]
    return max(float((a.float() - b.float()).abs().max()) for a, b in pairs)


def _medians(frames: Sequence[Frame]) -> dict[str, float]:
    return {name: median(frame.ms[name] for frame in frames) for name in frames[0].ms}
