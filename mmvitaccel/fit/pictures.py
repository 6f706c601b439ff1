"""Sizes of pictures against those that the annotations were made for."""

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
_SAME_SIZE = {2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored"}


def check_picture_sizes(sets: Sequence[DataSet]) -> None:
    """Look at some pictures of each data set, and warn of the first of another size."""
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
                    f"{path} is {_SAME_SIZE[turn]} when loaded, as its EXIF orientation {turn} "
                    "says, and its size does not tell whether its boxes were drawn on the picture "
                    "as shown or as stored; look at one, and save the pictures upright if they "
                    "are of the stored one.",
                    stacklevel=2,
                )
                break


class PictureSizeHook(Hook):
    """Compares the size of each picture with its annotation's when it is loaded, and warns once.

    It puts a step into the pipelines of the built data sets, after the one that loads a picture;
    the config stays as it is.
    """

    def before_train(self, runner: Runner) -> None:
        """Watch the training set."""
        _watch(runner.train_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Watch the validation set."""
        _watch(runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Watch the test set."""
        _watch(runner.test_dataloader)


class ComparePictureSize:
    """A step of a pipeline that lets everything through and warns of the first misfit."""

    def __init__(self) -> None:
        # reason: in memory that the loader's workers share, so that one of them warns for all
        self.told = torch.zeros(1, dtype=torch.uint8).share_memory_()

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare ``ori_shape`` with the annotation's ``height`` and ``width``."""
        given = (results.get("height"), results.get("width"))
        size = tuple(results.get("ori_shape") or given)[:2]
        if None not in given and size != given and not self.told[0]:
            self.told[0] = 1
            _warn(str(results.get("img_path")), size, given)
        return results

    def __repr__(self) -> str:
        return "ComparePictureSize()"


def _watch(loader: Any) -> None:
    for dataset in _built(getattr(loader, "dataset", None)):
        steps = getattr(getattr(dataset, "pipeline", None), "transforms", None)
        if not isinstance(steps, list) or any(isinstance(s, ComparePictureSize) for s in steps):
            continue
        names = [type(step).__name__ for step in steps]
        if "LoadImageFromFile" in names:
            steps.insert(names.index("LoadImageFromFile") + 1, ComparePictureSize())


def _built(dataset: Any) -> Iterator[Any]:
    """A built data set, or those inside wrappers."""
    inner = [getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())]
    inner = [item for item in inner if item is not None]
    if dataset is not None and not inner:
        yield dataset
    for item in inner:
        yield from _built(item)


def _images(data: DataSet) -> list[dict[str, Any]]:
    prefix = data.config.get("data_prefix")
    is_json = (data.annotations or "").endswith(".json") and isinstance(prefix, Mapping)
    return (read_list(data.annotations or "", "images") or []) if is_json else []


def _turned_size(path: str) -> tuple[tuple[int, int] | None, Any]:
    """Height and width as OpenCV loads it, turned as its EXIF says; and what that says."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turn, kind = image.getexif().get(_ORIENTATION), image.format
        if turn in (None, 1):
            return (height, width), None
        # reason: which kinds are turned by it depends on OpenCV, and Pillow turns TIFF's size alone
        loaded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, cv2.error):
        # reason: a picture that cannot be read is said by what loads it
        return None, None
    if loaded is None:
        return None, None
    # reason: OpenCV leaves WebP as it is stored
    return loaded.shape[:2], None if kind == "WEBP" else turn


def _warn(path: str, size: Sequence[int], given: Sequence[int]) -> None:
    """Warn of a picture, always from this line: Python shows one text from one line once."""
    cause = ""
    if tuple(size) == tuple(given)[::-1]:
        cause = " (an EXIF turn, which loading applies?)"
    warnings.warn(
        f"{path} is {size[1]} x {size[0]} pixels when loaded, but its annotation says "
        f"{given[1]} x {given[0]}{cause}: its boxes are of another picture; save the pictures "
        "upright, or make the annotations for them as loaded.",
        stacklevel=1,
    )
