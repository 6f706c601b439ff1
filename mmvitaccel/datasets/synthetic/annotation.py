"""Ground truth from rendered pixels: boxes, areas and outlines in COCO format."""

from __future__ import annotations

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.scene import Visible
from mmvitaccel.datasets.synthetic.sprites import CLASSES

CATEGORIES = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]

# With less than this visible, the object cannot be identified
MIN_FRACTION = 0.2
MIN_PIXELS = 16


def annotate(visible: Visible) -> dict | None:
    """Describe what is visible of an object.

    Args:
        visible: Its class and pixels.

    Returns:
        ``bbox`` (x, y, width, height of the visible pixels), ``area`` in pixels,
        ``segmentation`` (polygons), ``category_id``, ``iscrowd`` and ``visibility`` (the visible
        share); None if too little is visible.
    """
    area = int(visible.mask.sum())
    if area < MIN_PIXELS or visible.fraction < MIN_FRACTION:
        return None
    rows = np.flatnonzero(visible.mask.any(axis=1))
    cols = np.flatnonzero(visible.mask.any(axis=0))
    x, y = int(cols[0]), int(rows[0])
    return {
        "category_id": CATEGORIES[visible.label]["id"],
        "bbox": [x, y, int(cols[-1]) - x + 1, int(rows[-1]) - y + 1],
        "area": area,
        "segmentation": polygons(visible.mask),
        "iscrowd": 0,
        "visibility": round(visible.fraction, 4),
    }


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace a mask.

    Args:
        mask: (H, W) bool. Holes are filled.

    Returns:
        One flat list x0, y0, x1, y1, ... per connected part, in pixels.
    """
    zoom = 4
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = rows[0], cols[0]
    part = mask[top : rows[-1] + 1, left : cols[-1] + 1].astype(np.uint8)
    # Contours run through pixel centres; on enlarged pixels they stay near the edge
    large = part.repeat(zoom, axis=0).repeat(zoom, axis=1)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    traced = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.4 * zoom, True)[:, 0]
        if len(points) >= 3:
            points = (points + 0.5) / zoom + [left, top]
            traced.append(points.round(2).ravel().tolist())
    return traced
