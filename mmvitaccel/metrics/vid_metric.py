"""mAP50 over every frame of a video data set, without rounding and without missing frames."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmvitaccel.arguments import config, flag, numbers, path, whole_number
from mmvitaccel.datasets.cocovid import category_ids_by_class, read_cocovid
from mmvitaccel.metrics.exchange import exchange
from mmvitaccel.metrics.motion_precision import MotionPrecision
from mmvitaccel.metrics.object_motion import GROUPS, motion_groups
from mmvitaccel.registry import METRICS


@METRICS.register_module()
class VIDMetric(BaseMetric):
    """Average precision of boxes on a CocoVID set, in percent, by pycocotools.

    The main value is ``vid/mAP50``: the mean over classes of the average precision at an IoU of 0.5
    (interpolated at 101 recalls, up to ``max_dets`` boxes per image), as usually reported on
    ImageNet VID. It is a percentage in full precision (82.9345...), printed with two decimals;
    mmdet's ``CocoMetric`` rounds to 0.829.

    Results of all ranks are gathered completely, whatever the number of frames on each. Frames that
    a sampler repeated count once. The evaluated frames must be those of ``ann_file``, or as many as
    the dataset has if it is a subset (``indices``). Otherwise an error is raised instead of
    reporting a value for a part of the frames.

    Args:
        ann_file: CocoVID file with the ground truth, the same as the dataset's.
        iou_thrs: IoU thresholds, each reported as ``mAP<100 x threshold>``; the mean of several is
            reported as ``mAP``. COCO's are ``(0.5, 0.55, ..., 0.95)``.
        classwise: Also report ``AP50/<class>`` (at the first threshold) for each class.
        max_dets: Number of most confident boxes per image to evaluate.
        backend_args: Arguments of mmengine's file backend for ``ann_file``.
        collect_device: ``cpu`` or ``gpu``: the device for gathering results.
        prefix: Prefix of the reported names. Defaults to ``vid``.
        collect_dir: Folder shared by the ranks, for ``collect_device='cpu'``.
        by_motion: Whether to report ``mAP50_slow``, ``mAP50_medium`` and ``mAP50_fast`` as well (of
            each overlap): the mean over classes of the average precision on objects of one speed,
            as FGFA (ICCV 2017) defines it. The motion IoU of an object in a frame is the mean
            overlap of its box with its own boxes in the frames at most 10 away; above 0.9 it is
            slow, below 0.7 fast, else medium; an object without other frames in range is fast.
            Objects of the other groups are ignored, and so are their detections, as in FGFA's
            evaluation; :class:`~mmvitaccel.metrics.motion_precision.MotionPrecision` states the
            rules. Overlaps and recalls are those of mAP50, while FGFA's code widens boxes by a
            pixel, lowers the threshold for small boxes and interpolates at every recall. NaN if a
            group has no object.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist.
        ValueError: It is not a CocoVID file, a threshold is not in (0, 1], or with ``by_motion``
            its objects have no ``instance_id``.
    """

    default_prefix = "vid"

    def __init__(
        self,
        ann_file: str,
        iou_thrs: Sequence[float] = (0.5,),
        classwise: bool = False,
        max_dets: int = 100,
        backend_args: dict[str, Any] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        by_motion: bool = False,
    ) -> None:
        super().__init__(**exchange("VIDMetric", collect_device, prefix, collect_dir))
        owner, why = "VIDMetric", "give one or more overlaps in (0, 1]"
        self.ann_file = path(owner, "ann_file", ann_file)
        self.iou_thrs = numbers(owner, "iou_thrs", iou_thrs, above=0, most=1, why=why)
        self.classwise = flag(owner, "classwise", classwise)
        self.max_dets = whole_number(owner, "max_dets", max_dets, least=1, of="boxes")
        self.by_motion = flag(owner, "by_motion", by_motion)
        config(owner, "backend_args", backend_args, what="a dict", or_none=True)
        self.truth = read_cocovid(self.ann_file, backend_args)
        self.groups = motion_groups(self.truth, ann_file) if by_motion else {}
        self._dataset_size = 0

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Store each frame's boxes (xyxy, pixels of the original frame), scores and labels."""
        for sample in data_samples:
            found = sample["pred_instances"]
            self.results.append(
                (
                    sample["img_id"],
                    found["bboxes"].cpu().numpy(),
                    found["scores"].cpu().numpy(),
                    found["labels"].cpu().numpy(),
                )
            )

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather from all ranks and compute.

        Args:
            size: Number of items in the dataset.

        Returns:
            Figures by name, in percent, the same on every rank.
        """
        self._dataset_size = size
        # mmengine cuts the gathered results down to `size` items, which loses frames where
        # an item of the dataset is a video and cannot tell repeated frames from others.
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Average precision over the gathered frames.

        Args:
            results: ``(img_id, boxes (M, 4), scores (M,), labels (M,))`` of each frame.

        Returns:
            Figures by name, in percent.

        Raises:
            RuntimeError: The frames scored are not those of the set.
        """
        by_image = {result[0]: result for result in reversed(results)}
        self._check_frames(by_image)
        # Boxes of equal score rank in the order they come; sorted, that is the same for
        # any number of ranks.
        ordered = [by_image[image_id] for image_id in sorted(by_image)]
        category_ids = category_ids_by_class(
            self.truth["categories"], self.dataset_meta["classes"], self.ann_file
        )
        evaluation = self._evaluate(ordered, category_ids)
        # T x R x K x areas x maxDets -> T x R x K
        precision = evaluation.eval["precision"][:, :, :, 0, 0]
        # COCOeval sorts the categories by their ids
        figures = self._figures(precision, sorted(category_ids, key=category_ids.get))
        name, headline = next(iter(figures.items()))
        speeds = ""
        if self.by_motion:
            motion = self._motion_figures(evaluation)
            speeds = "".join(f", {group} {motion[f'{name}_{group}']:.2f} %" for group in GROUPS)
            figures.update(motion)
        boxes = sum(len(result[2]) for result in ordered)
        MMLogger.get_current_instance().info(
            f"VID: {name} {headline:.2f} %{speeds} ({len(ordered)} frames, {boxes} boxes)"
        )
        return figures

    def _check_frames(self, by_image: dict[Any, Any]) -> None:
        """Raise unless every frame of the set, or of the dataset, was scored."""
        of_truth = {image["id"] for image in self.truth["images"]}
        strange = sorted(set(by_image) - of_truth)
        if strange:
            raise RuntimeError(
                f"VIDMetric: {len(strange)} scored frames, such as img_id {strange[0]}, are not in "
                f"{self.ann_file}; give the metric the dataset's own ann_file."
            )
        # A subset (indices=...) may be scored, but only completely
        if len(by_image) not in (len(of_truth), self._dataset_size):
            lost = sorted(of_truth - set(by_image))
            raise RuntimeError(
                f"VIDMetric: {len(by_image)} of the {len(of_truth)} frames of {self.ann_file} were "
                f"scored, with {self._dataset_size} items in the dataset; img_id {lost[0]} is the "
                "first one missing. Use mmvitaccel.ImageNetVID and mmvitaccel.VideoSampler."
            )
        if len(by_image) < len(of_truth):
            MMLogger.get_current_instance().warning(
                f"VIDMetric: {len(by_image)} of the {len(of_truth)} frames of {self.ann_file} were "
                "scored, as many as the dataset has: the figures are for this subset."
            )

    def _evaluate(self, ordered: list[Any], category_ids: dict[int, int]) -> COCOeval:
        """Match and accumulate; the precision is -1 for classes without objects."""
        frames = [result[0] for result in ordered]
        truth = _coco(self.truth["images"], self.truth["categories"], self.truth["annotations"])
        found = _coco(
            self.truth["images"], self.truth["categories"], _detections(ordered, category_ids)
        )
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.imgIds = frames
            evaluation.params.catIds = list(category_ids.values())
            evaluation.params.iouThrs = np.array(self.iou_thrs)
            evaluation.params.areaRng = [[0, sys.maxsize]]
            evaluation.params.areaRngLbl = ["all"]
            evaluation.params.maxDets = [self.max_dets]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation

    def _motion_figures(self, evaluation: COCOeval) -> dict[str, float]:
        """Means of the precision on slow, medium and fast objects, in percent, by name."""
        by_id = {place + 1: group for place, group in self.groups.items()}  # as _coco numbers them
        motion = MotionPrecision(evaluation, by_id)
        figures = {}
        for group in GROUPS:
            precision = motion.precision(group)
            for row, threshold in enumerate(self.iou_thrs):
                figures[f"mAP{100 * threshold:g}_{group}"] = _percent(precision[row])
        return figures

    def _figures(self, precision: np.ndarray, labels: list[int]) -> dict[str, float]:
        """Means of the precision, in percent, by name."""
        figures = {
            f"mAP{100 * threshold:g}": _percent(precision[row])
            for row, threshold in enumerate(self.iou_thrs)
        }
        if len(self.iou_thrs) > 1:
            figures["mAP"] = _percent(precision)
        if self.classwise:
            for column, label in enumerate(labels):
                name = f"AP{100 * self.iou_thrs[0]:g}/{self.dataset_meta['classes'][label]}"
                figures[name] = _percent(precision[0, :, column])
        return figures


def _percent(precision: np.ndarray) -> float:
    """Mean of the defined values, x 100; NaN if no class has an object."""
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else float("nan")


def _detections(ordered: list[Any], category_ids: dict[int, int]) -> list[dict[str, Any]]:
    """Detections in pycocotools' format: x, y, width, height in pixels."""
    annotations = []
    for image_id, boxes, scores, labels in ordered:
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist()):
            if label not in category_ids:
                continue
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    return annotations


def _coco(images: list[Any], categories: list[Any], annotations: list[Any]) -> COCO:
    """A pycocotools index over lists in memory, which are not changed."""
    coco = COCO()
    # Copies, because COCOeval writes into them; with new ids, because it takes
    # an object with id 0 for one that was never matched.
    complete = [
        {"iscrowd": 0, "area": annotation["bbox"][2] * annotation["bbox"][3], **annotation, "id": n}
        for n, annotation in enumerate(annotations, 1)
    ]
    coco.dataset = {"images": images, "categories": categories, "annotations": complete}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
