"""Comparison of the sizes of pictures with the sizes in their annotations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image, UnidentifiedImageError

from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.fit.datasets import DataSet

_SAMPLE = 32
_ORIENTATION = 0x0112
_SAME_SIZE = {2: "mirrored", 3: "rotated by 180 degrees", 4: "mirrored"}


def check_picture_sizes(sets: Sequence[DataSet]) -> None:
    """Check a sample of each data set's pictures; warn of the first with another size.

    A picture that loading mirrors or rotates by 180 degrees causes a warning too.
    """
    for data in sets:
        images = _images(data)
        for image in images[:: max(len(images) // _SAMPLE, 1)]:
            path = os.path.join(data.folder("img"), str(image.get("file_name")))
            size, turn = _turned_size(path)
            given = (image.get("height"), image.get("width"))
            if size is None or None in given:
                continue
            if size != given:
                _warn(path, size, given)
                break
            if turn in _SAME_SIZE:
                warnings.warn(
                    f"{path} is {_SAME_SIZE[turn]} when loaded, because of its EXIF orientation "
                    f"{turn}. Its boxes may belong to the stored picture, which its size does not "
                    "tell; check a box, and if so, save the pictures without the orientation.",
                    stacklevel=2,
                )
                break


class PictureSizeHook(Hook):
    """Compares the size of each loaded picture with its annotation, and warns once.

    It inserts a transform into the pipelines of the built data sets, after ``LoadImageFromFile``.
    The config is not changed.
    """

    def before_train(self, runner: Runner) -> None:
        """Insert the comparison into the training set."""
        _watch(runner.train_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Insert the comparison into the validation set."""
        _watch(runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Insert the comparison into the test set."""
        _watch(runner.test_dataloader)


class ComparePictureSize:
    """A pipeline transform that changes nothing and warns of the first picture of another size."""

    def __init__(self) -> None:
        # Shared memory, so that one of the loader's workers warns for all.
        self.warned = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare ``ori_shape`` with the annotation's ``height`` and ``width``."""
        given = (results.get("height"), results.get("width"))
        size = tuple(results.get("ori_shape") or given)[:2]
        if None not in given and size != given and not self.warned[0]:
            self.warned[0] = 1
            _warn(str(results.get("img_path")), size, given)
        return results

    def __repr__(self) -> str:
        return "ComparePictureSize()"


def _watch(loader: Any) -> None:
    for dataset in built_sets(getattr(loader, "dataset", None)):
        steps = getattr(getattr(dataset, "pipeline", None), "transforms", None)
        if not isinstance(steps, list) or any(isinstance(s, ComparePictureSize) for s in steps):
            continue
        names = [type(step).__name__ for step in steps]
        if "LoadImageFromFile" in names:
            steps.insert(names.index("LoadImageFromFile") + 1, ComparePictureSize())


def built_sets(dataset: Any) -> Iterator[Any]:
    """Yield a built data set, or those that it wraps."""
    inner = [getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())]
    inner = [item for item in inner if item is not None]
    if dataset is not None and not inner:
        yield dataset
    for item in inner:
        yield from built_sets(item)


def _images(data: DataSet) -> list[dict[str, Any]]:
    prefix = data.config.get("data_prefix")
    is_json = (data.annotations or "").endswith(".json") and isinstance(prefix, Mapping)
    return (read_list(data.annotations or "", "images") or []) if is_json else []


def _turned_size(path: str) -> tuple[tuple[int, int] | None, Any]:
    """Return (height, width) as OpenCV loads a picture, and its EXIF orientation if applied."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turn, kind = image.getexif().get(_ORIENTATION), image.format
        if turn in (None, 1):
            return (height, width), None
        # OpenCV decides for which formats it applies the orientation, and Pillow already swaps the
        # size of a TIFF, so the picture is decoded.
        loaded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, cv2.error):
        # An unreadable picture is reported when it is loaded.
        return None, None
    if loaded is None:
        return None, None
    # OpenCV ignores the orientation of WebP.
    return loaded.shape[:2], None if kind == "WEBP" else turn


def _warn(path: str, size: Sequence[int], given: Sequence[int]) -> None:
    """Warn of a picture. Python shows a text only once per line, so the warning is always here."""
    cause = ""
    if tuple(size) == tuple(given)[::-1]:
        cause = " (probably rotated by its EXIF orientation)"
    warnings.warn(
        f"{path} is {size[1]} x {size[0]} pixels when loaded, but its annotation says "
        f"{given[1]} x {given[0]}{cause}, so its boxes do not fit; save the pictures without an "
        "EXIF orientation, or annotate them as loaded.",
        stacklevel=1,
    )
