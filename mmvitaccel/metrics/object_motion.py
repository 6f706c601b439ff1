"""Motion groups of a video's objects (FGFA, ICCV 2017, section 5.1).

An object's motion IoU in a frame is the mean overlap of its box there with its own boxes in the
frames at most ten away, before and after. Objects above 0.9 are slow, below 0.7 fast, the others
medium.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

GROUPS = ("slow", "medium", "fast")
REACH = 10  # frames, before and after
_SLOW_ABOVE, _FAST_BELOW = 0.9, 0.7
_DECIMALS = 9  # A mean of equal overlaps may differ from them in the last digits


def motion_groups(truth: Mapping[str, Any], ann_file: str) -> dict[Any, str]:
    """The group of every object, in the order of the annotations.

    An object without other frames in range counts as fast, as in the evaluation released with FGFA,
    where its motion IoU is 0.

    Args:
        truth: Content of a CocoVID json.
        ann_file: Named in messages.

    Raises:
        ValueError: Objects have no ``instance_id``, or two of one instance are in one frame.
    """
    annotations = truth["annotations"]
    lacking = [a for a in annotations if not _is_id(a.get("instance_id"))]
    if lacking:
        raise ValueError(
            f"VIDMetric: by_motion=True follows objects by their instance_id, a number or a "
            f"text, which {len(lacking)} of the {len(annotations)} annotations of {ann_file} lack, "
            "such as id "
            f"{lacking[0].get('id')} of image_id {lacking[0]['image_id']}; convert the set again "
            "with tools/dataset_converters/imagenet_vid.py or leave by_motion out."
        )
    return {place: group_of(iou) for place, iou in _motion_ious(truth, ann_file).items()}


def _is_id(value: Any) -> bool:
    # Tables write integers with a decimal point, and NaN for missing values
    return isinstance(value, (int, float, str)) and value == value


def group_of(motion_iou: float) -> str:
    """``slow``, ``medium`` or ``fast``; exactly 0.7 and 0.9 are medium."""
    rounded = round(motion_iou, _DECIMALS)
    if rounded > _SLOW_ABOVE:
        return "slow"
    return "fast" if rounded < _FAST_BELOW else "medium"


def _motion_ious(truth: Mapping[str, Any], ann_file: str) -> dict[int, float]:
    images = {image["id"]: image for image in truth["images"]}
    tracks: dict[tuple, dict[int, int]] = defaultdict(dict)
    for place, annotation in enumerate(truth["annotations"]):
        image = images.get(annotation["image_id"])
        if image is None:
            continue  # The frame is not scored
        # An image without a video is a video of one frame
        video = image.get("video_id", ("image", image["id"]))
        track = tracks[video, annotation["instance_id"]]
        frame = image.get("frame_id", 0)
        if frame in track:
            raise ValueError(
                f"VIDMetric: instance_id {annotation['instance_id']} is twice in frame {frame} of "
                f"video {video} of {ann_file} (image_id {image['id']}); give each object its own."
            )
        track[frame] = place
    ious = {}
    for track in tracks.values():
        boxes = {frame: truth["annotations"][place]["bbox"] for frame, place in track.items()}
        for frame, place in track.items():
            near = range(frame - REACH, frame + REACH + 1)
            own = [overlap(boxes[frame], boxes[n]) for n in near if n != frame and n in boxes]
            ious[place] = math.fsum(own) / len(own) if own else 0.0
    return ious


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    either = a[2] * a[3] + b[2] * b[3] - both
    return both / either if either else 0.0
