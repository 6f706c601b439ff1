"""Draws a frame of the demo: recomputed tokens, labelled boxes, and a strip with the costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmvitaccel.extras import require
from mmvitaccel.pictures.text import Line, legible, put_texts
from mmvitaccel.video_demo.frame import DemoFrame

_LEAST_WIDTH = 480
_RED = np.array([40, 40, 230], np.float32)  # BGR
_OPAQUE = 0.45  # opacity of a token that passed every gate
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_DENSE, _EVENTFUL = (110, 110, 110), (60, 60, 200)  # BGR


class Painter:
    """Draws frames of one video.

    Args:
        classes: Names of the detector's classes.
        track: Whether detections have track ids, and traces are drawn.

    Raises:
        UserError: supervision is not installed.
    """

    def __init__(self, classes: Sequence[str], track: bool) -> None:
        require("video", "supervision")
        import supervision

        self._sv = supervision
        self._names = [legible(str(name), number) for number, name in enumerate(classes)]
        palette, by = supervision.ColorPalette.DEFAULT, supervision.ColorLookup
        self._boxes = {
            True: supervision.BoxAnnotator(palette, color_lookup=by.TRACK),
            False: supervision.BoxAnnotator(palette, color_lookup=by.CLASS),
        }
        self._traces = supervision.TraceAnnotator(palette, color_lookup=by.TRACK)
        self._track = track

    def draw(self, image: np.ndarray, share: np.ndarray | None, frame: DemoFrame) -> np.ndarray:
        """Draw a frame.

        Args:
            image: (height, width, 3) uint8 BGR. A narrow image is enlarged by an integer factor.
            share: (height, width), for each pixel the share of gates that its token passed; None to
                draw no tokens.
            frame: The frame's detections and costs.

        Returns:
            (height, width, 3) uint8 RGB, the strip above the image. If the frame has dense
            detections, an image with these is to the left.
        """
        factor = -(-_LEAST_WIDTH // image.shape[1])
        plain = image
        if share is not None:
            alpha = _OPAQUE * share[..., None]
            image = (image * (1 - alpha) + _RED * alpha).astype(np.uint8)
        drawn = self._draw_boxes(image, frame.detections, factor, self._track)
        if frame.dense_detections is not None:
            dense = self._draw_boxes(plain, frame.dense_detections, factor, False)
            drawn = np.concatenate([_titled(dense, "dense"), _titled(drawn, "eventful")], 1)
        strip = _strip(frame, drawn.shape[1])
        return np.ascontiguousarray(np.concatenate([strip, drawn])[..., ::-1])

    def _draw_boxes(self, image: np.ndarray, found: Any, factor: int, track: bool) -> np.ndarray:
        size = (factor * image.shape[1], factor * image.shape[0])
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
        boxes = self._sv.Detections(
            xyxy=factor * found.bboxes.cpu().numpy().reshape(-1, 4),
            confidence=found.scores.cpu().numpy(),
            class_id=found.labels.cpu().numpy(),
            tracker_id=found.instances_id.cpu().numpy() if track else None,
        )
        image = np.ascontiguousarray(image)
        if track and len(boxes):
            image = self._traces.annotate(image, boxes)
        image = self._boxes[track].annotate(image, boxes)
        return put_texts(image, self._labels(boxes, image.shape[1]), outline=_BLACK)

    def _labels(self, boxes: Any, width: int) -> list[Line]:
        size = max(width // 60, 12)
        lines = []
        for number, (left, top) in enumerate(boxes.xyxy[:, :2].round().astype(int).tolist()):
            label = int(boxes.class_id[number])
            known = label < len(self._names)
            text = f"{self._names[label] if known else label} {boxes.confidence[number]:.2f}"
            if boxes.tracker_id is not None:
                text = f"#{int(boxes.tracker_id[number])} {text}"
            # Keeps the text inside the picture if the box touches its upper edge
            lines.append(Line(text, (max(left, 0), max(top - size - 4, 0)), size, _WHITE))
        return lines


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """A picture with a title in its lower left corner."""
    size = max(image.shape[1] // 40, 12)
    line = Line(title, (6, image.shape[0] - size - 10), size, _WHITE)
    return put_texts(image, [line], outline=_BLACK)


def _strip(frame: DemoFrame, width: int) -> np.ndarray:
    """Dense and eventful costs of a frame, as text over bars of their milliseconds; BGR."""
    size = max(width // 45, 11)
    row = size + 8
    strip = np.full((2 * row, width, 3), 25, np.uint8)
    times = (frame.dense_milliseconds, frame.milliseconds or 0.0)
    longest = max(*times, 1e-9)
    lines = []
    for number, (ms, colour) in enumerate(zip(times, (_DENSE, _EVENTFUL))):
        top = number * row
        strip[top + 1 : top + row - 1, : round(width * ms / longest)] = colour
        lines.append(Line(_texts(frame)[number], (6, top + 2), size, _WHITE))
    return put_texts(strip, lines, outline=_BLACK)


def _texts(frame: DemoFrame) -> tuple[str, str]:
    eventful = ["eventful", _ms(frame.milliseconds), _macs(frame.macs)]
    eventful += [] if frame.k is None else [f"k {frame.k}"]
    eventful += [] if frame.target is None else [f"budget {frame.target.short}"]
    eventful += ["cannot be held"] if frame.missed else []
    dense = ["dense", _ms(frame.dense_milliseconds), _macs(frame.dense_macs)]
    return "  ".join(dense), "  ".join(eventful)


def _ms(value: float | None) -> str:
    return "- ms" if value is None else f"{value:.1f} ms"


def _macs(value: float | None) -> str:
    return "- G multiply-adds" if value is None else f"{value / 1e9:.2f} G multiply-adds"
