"""Runs detectors frame by frame: each part timed separately, or with multiply-adds counted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from detector_runs.inputs import Given
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError
from mmvitaccel.testing.baselines import openvino

Network = Callable[[Tensor], list[Tensor]]


@dataclass
class Frame:
    """Times and results of one frame.

    Attributes:
        ms: Milliseconds of each part, and ``total``.
        outs: Outputs of the dense head: a list of maps for each kind of output.
        levels: Output levels of the neck.
        boxes: Detections with scores.
        macs: Multiply-adds of the model's modules, and ``total``; empty if not counted.
    """

    ms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    outs: Any = None
    levels: Any = None
    boxes: Any = None
    macs: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the time of a part."""
        start = time.perf_counter()
        yield
        self.ms[name] += 1e3 * (time.perf_counter() - start)


def sample_of(picture: Tensor) -> Any:
    """Make the data sample of a picture (3, H, W)."""
    from mmdet.structures import DetDataSample

    shape = tuple(picture.shape[1:])
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), img_id=0)
    return DetDataSample(metainfo=meta)


def preprocessed(model: nn.Module, picture: Tensor) -> dict[str, Any]:
    """Preprocess a picture (3, H, W) uint8; returns ``inputs`` and ``data_samples``."""
    given = dict(inputs=[picture], data_samples=[sample_of(picture)])
    return model.data_preprocessor(given, False)


def head_over_maps(model: nn.Module) -> nn.Module:
    """Return the dense head: that of a one-stage detector, or the RPN of a two-stage one."""
    return model.bbox_head if hasattr(model, "bbox_head") else model.rpn_head


class UpToHead(nn.Module):
    """The part of a detector that OpenVINO computes: backbone, neck and dense head.

    Args:
        model: The detector.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, head_over_maps(model)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to the levels of the neck and the outputs of the head."""
        levels = self.neck(self.backbone(x))
        return [*levels, *(of_level for kind in self.head(levels) for of_level in kind)]


def in_openvino(plain: nn.Module, picture: Tensor, precision: str) -> Network | None:
    """Compile a detector up to its dense head in OpenVINO; None if OpenVINO cannot run it."""
    try:
        return openvino(UpToHead(plain), preprocessed(plain, picture)["inputs"], precision)
    except UserError as error:
        print(f"without OpenVINO: {error}", flush=True)
        return None


def run_frame(model: nn.Module, given: Given, frame: Frame, network: Network | None = None) -> None:
    """Compute a frame part by part.

    Args:
        model: The detector.
        given: Inputs of the frame.
        frame: Times and results, filled in place.
        network: Computes backbone, neck and dense head instead of the model, see
            :func:`in_openvino`.
    """
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
    """Run a model on the frames of a video.

    Args:
        model: The detector.
        video: Inputs of each frame.
        stream: Returns the context manager of the stream that the frames belong to.
        count: Count multiply-adds. Times are then not meaningful.
        network: See :func:`run_frame`.
    """
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
