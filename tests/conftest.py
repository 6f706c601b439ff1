"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_cocovid(tmp_path):
    """Write a CocoVID json and its frames (PNG noise); returns the json's path."""

    def write(
        lengths=(5, 5),
        classes=("cat", "dog"),
        size=(48, 64),
        name="vid.json",
        train_frames=None,
        shuffle=None,
        pictures=True,
    ) -> Path:
        """Video v (from 1) has lengths[v - 1] frames with one object of each class."""
        import cv2

        height, width = size
        rng = np.random.default_rng(0)
        images, annotations = [], []
        for video_id, length in enumerate(lengths, 1):
            for frame_id in range(length):
                image = {
                    "id": len(images) + 1,
                    "file_name": f"video{video_id}/{frame_id:06d}.png",
                    "video_id": video_id,
                    "frame_id": frame_id,
                    "height": height,
                    "width": width,
                    "is_vid_train_frame": train_frames is not None and frame_id in train_frames,
                }
                images.append(image)
                for category_id in range(1, len(classes) + 1):
                    x, y = rng.integers(0, width // 2), rng.integers(0, height // 2)
                    w, h = rng.integers(8, width // 2), rng.integers(8, height // 2)
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": image["id"],
                            "video_id": video_id,
                            "category_id": category_id,
                            "instance_id": video_id * len(classes) + category_id,
                            "bbox": [int(x), int(y), int(w), int(h)],
                            "area": int(w * h),
                            "iscrowd": False,
                        }
                    )
                if pictures:
                    path = tmp_path / image["file_name"]
                    path.parent.mkdir(exist_ok=True)
                    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    cv2.imwrite(str(path), noise)
        if shuffle is not None:
            images = [images[i] for i in np.random.default_rng(shuffle).permutation(len(images))]
        content = {
            "videos": [{"id": v, "name": f"video{v}"} for v in range(1, len(lengths) + 1)],
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n, "name": c} for n, c in enumerate(classes, 1)],
        }
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write
