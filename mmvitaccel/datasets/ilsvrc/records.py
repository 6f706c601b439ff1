"""CocoVID records from ImageNet's XML files, with the same fields as mmtracking's converter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmvitaccel.datasets.vid_classes import VID_SYNSETS

# mmtracking's spelling, which existing json files use
OTHER_CATEGORIES = "other_categeries"


@dataclass(frozen=True)
class Thing:
    """An object of an image.

    Attributes:
        synset: Its WordNet synset, or the name of another class.
        box: Left, top, right, bottom, in pixels.
        track: Identifier of the object in all frames of a video; None without one (DET).
        flags: ``occluded`` and ``generated``, if the file has them (VID).
    """

    synset: str
    box: tuple[float, float, float, float]
    track: str | None
    flags: dict[str, bool]


@dataclass(frozen=True)
class Annotation:
    """Content of an xml file: the image's size in pixels and its objects."""

    height: int
    width: int
    things: list[Thing]


def read_annotation(path: Path) -> Annotation:
    """Read an xml file.

    Args:
        path: Below ``Annotations``.

    Returns:
        Its content.

    Raises:
        ValueError: It is not a complete XML file, or lacks a size, a name or a box.
    """
    try:
        root = ElementTree.parse(path).getroot()
    # Unknown encodings make expat call Python's codecs, which raise various errors
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"not readable as xml: {error}") from error
    things = [_thing(element) for element in root.iter("object")]
    height, width = (int(_number(root, f"size/{side}")) for side in ("height", "width"))
    if min(height, width) < 1:
        raise ValueError(
            f"<{root.tag}>'s size is {width} x {height} pixels (width x height), which no picture "
            "has"
        )
    return Annotation(height, width, things)


class CocoVID:
    """A CocoVID json that grows image by image; ids count from 1.

    Args:
        kind: ``VID`` or ``DET``.
        classes: Class names in the annotations, used as categories; the 30 by default.

    Attributes:
        content: Content of the JSON file.
        class_names: Names of the categories.
        without_objects: Number of images without objects.
        per_class: Objects by class name.
        unknown: Number of objects by unknown class name.
        odd: Possible mistakes: description, number and place of the first.
    """

    def __init__(self, kind: str, classes: Sequence[str] | None = None) -> None:
        known = {name: name for name in classes} if classes else VID_SYNSETS
        self.class_names = tuple(known.values())
        self._category_ids = {synset: number for number, synset in enumerate(known, 1)}
        categories: list[dict[str, Any]] = [
            {"id": number, "name": name, "encode_name": synset}
            for number, (synset, name) in enumerate(known.items(), 1)
        ]
        self.content: dict[str, list[Any]] = {"categories": categories}
        if kind == "VID":
            self.content["videos"] = []
        else:
            other = {"id": len(categories) + 1, "name": OTHER_CATEGORIES, "encode_name": None}
            categories.append(other)
        self.content.update(images=[], annotations=[])
        self.without_objects = 0
        self.per_class: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.odd: dict[str, tuple[int, str]] = {}
        self._instances = 0
        self._tracks: dict[str, int] = {}

    def has_class(self, annotation: Annotation) -> bool:
        """Whether any object is of one of the classes."""
        return any(thing.synset in self._category_ids for thing in annotation.things)

    def add_video(self, name: str, train_frames: list[int]) -> int:
        """Start a video.

        Args:
            name: Its folder below ``Data/VID``.
            train_frames: Numbers of the frames to train on.

        Returns:
            Its id.
        """
        videos = self.content["videos"]
        videos.append({"id": len(videos) + 1, "name": name, "vid_train_frames": train_frames})
        self._tracks = {}
        return len(videos)

    def add_frame(self, file_name: str, annotation: Annotation, **place: Any) -> None:
        """Add a frame of the current video, and its objects of the 30 classes.

        Args:
            file_name: Below ``Data/VID``.
            annotation: Its annotation.
            **place: ``frame_id``, ``video_id`` and ``is_vid_train_frame``.
        """
        image_id = self._add_image(file_name, annotation, place)
        for thing in annotation.things:
            if thing.synset not in self._category_ids:
                self.unknown[thing.synset] += 1
            else:
                if thing.track is None:
                    self._note("objects have no trackid, so that none is followed", file_name)
                ids = {"video_id": place["video_id"], "image_id": image_id}
                instance_id = self._instance_id(thing.track)
                category_id = self._category_ids[thing.synset]
                self._add_object(category_id, thing, ids, instance_id=instance_id)

    def add_image(self, file_name: str, annotation: Annotation, **place: Any) -> None:
        """Add an image of DET; objects of other classes share one category.

        Args:
            file_name: Below ``Data/DET``.
            annotation: Its annotation.
            **place: ``is_vid_train_frame``: whether video detectors train on it.
        """
        image_id = self._add_image(file_name, annotation, place)
        for thing in annotation.things:
            category_id = self._category_ids.get(thing.synset, len(self._category_ids) + 1)
            self._add_object(category_id, thing, {"image_id": image_id})

    def _add_image(self, file_name: str, annotation: Annotation, place: dict[str, Any]) -> int:
        images = self.content["images"]
        size = {"height": annotation.height, "width": annotation.width}
        images.append({"file_name": file_name, **size, "id": len(images) + 1, **place})
        self.without_objects += not annotation.things
        for thing in annotation.things:
            self._look_at_box(file_name, annotation, thing)
        return len(images)

    def _look_at_box(self, file_name: str, annotation: Annotation, thing: Thing) -> None:
        x1, y1, x2, y2 = thing.box
        box = ", ".join(f"{side:g}" for side in thing.box)
        where = f"{file_name}, {box} in {annotation.width} x {annotation.height}"
        if x1 == x2 or y1 == y2:
            self._note("boxes have no area", where)
        elif min(x1, y1) < 0 or x2 > annotation.width or y2 > annotation.height:
            self._note("boxes end outside of their picture", where)

    def _note(self, what: str, where: str) -> None:
        count, first = self.odd.get(what, (0, where))
        self.odd[what] = (count + 1, first)

    def _add_object(
        self, category_id: int, thing: Thing, ids: dict[str, int], **instance: int
    ) -> None:
        x1, y1, x2, y2 = thing.box
        annotations = self.content["annotations"]
        annotations.append(
            {
                "id": len(annotations) + 1,
                **ids,
                "category_id": category_id,
                **instance,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": False,
                **thing.flags,
            }
        )
        self.per_class[(*self.class_names, OTHER_CATEGORIES)[category_id - 1]] += 1

    def _instance_id(self, track: str | None) -> int:
        """A number for each track, never the same in two videos."""
        if track is None or track not in self._tracks:
            self._instances += 1
            if track is None:
                return self._instances
            self._tracks[track] = self._instances
        return self._tracks[track]


def _thing(element: ElementTree.Element) -> Thing:
    """An ``object`` element."""
    flags = {
        name: element.findtext(name) == "1"
        for name in ("occluded", "generated")
        if element.find(name) is not None
    }
    x1, y1, x2, y2 = (
        _number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")
    )
    if x2 < x1 or y2 < y1:
        raise ValueError(
            f"<{element.tag}>'s bndbox ends before it begins: xmin {x1:g}, ymin {y1:g}, xmax {x2:g}"
            f", ymax {y2:g}"
        )
    track = (element.findtext("trackid") or "").strip() or None
    return Thing(_text(element, "name"), (x1, y1, x2, y2), track, flags)


def _number(element: ElementTree.Element, path: str) -> float:
    """The number at a path, a whole one where it is.

    Raises:
        ValueError: There is none.
    """
    text = _text(element, path)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ValueError(f"<{element.tag}>'s {path} is {text!r}, which is not a finite number")
    return int(value) if value.is_integer() else value


def _text(element: ElementTree.Element, path: str) -> str:
    """The text at a path.

    Raises:
        ValueError: There is none.
    """
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no {path}")
    return text.strip()
