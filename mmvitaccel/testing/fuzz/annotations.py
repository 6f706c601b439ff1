"""Mutated annotations: COCO's and CocoVID's json files, ImageNet's XML files and lists."""

from __future__ import annotations

import json
import random
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console

from mmvitaccel.datasets.ilsvrc import convert
from mmvitaccel.datasets.imagenet_vid import ImageNetVID
from mmvitaccel.datasets.vid_classes import VID_SYNSETS
from mmvitaccel.errors import building
from mmvitaccel.fit.check import check_inputs
from mmvitaccel.testing.fuzz.mutate import ODD_VALUES, mutate_bytes, mutate_value

_CLASSES = ("antelope", "bear")
_SYNSETS = tuple(VID_SYNSETS)


class JsonFiles:
    """Mutated json files for COCO data sets and evaluators.

    Args:
        folder: Folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = _coco()
        self.whole = json.dumps(self.content).encode()
        (folder / "own.json").write_bytes(self.whole)
        (folder / "img").mkdir(exist_ok=True)

    def make(self, rng: random.Random) -> Path:
        """Write a json with changed bytes or values."""
        path = self.folder / "fuzzed.json"
        if rng.random() < 0.3:
            path.write_bytes(mutate_bytes(self.whole, [self.whole], rng))
            return path
        text = json.dumps(mutate_value(self.content, ODD_VALUES, rng))
        if rng.random() < 0.05:
            depth = rng.choice((900, 100_000))
            text = text.replace("64", "[" * depth + "]" * depth, 1)
        path.write_text(text)
        return path

    def read(self, given: Path) -> None:
        """Check it with the config, and build mmdet's and this package's data sets with it."""
        # Without `building`, which would turn any error into a sentence.
        check_inputs.__wrapped__(self._config(given, "CocoDataset"), "val")
        with building("config"):
            init_default_scope("mmdet")
            DATASETS.build(self._config(given, "CocoDataset").val_dataloader.dataset)
        own = self._config(given, "mmvitaccel.ImageNetVID").val_dataloader.dataset
        own.pop("type")
        # Also without `building`.
        ImageNetVID(**own)

    def _config(self, path: Path, kind: str) -> Config:
        data = dict(
            type=kind, data_root=str(self.folder), ann_file=path.name, test_mode=True,
            data_prefix=dict(img="img"), metainfo=dict(classes=_CLASSES), pipeline=[],
        )  # fmt: skip
        return Config(
            dict(
                default_scope="mmdet",
                model=dict(type="X"),
                val_cfg={},
                val_dataloader=dict(batch_size=1, dataset=data),
                val_evaluator=dict(type="CocoMetric", ann_file=str(self.folder / "own.json")),
            )
        )


class XmlFiles:
    """A release of ImageNet VID with a mutated annotation or list.

    Args:
        folder: Folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ILSVRC"
        self.whole = _xml(*_SYNSETS[:2]).encode()
        self.list = "".join(f"v0/{i:06d} {i + 1}\n" for i in range(2)).encode()
        frames = [f"val/v0/{i:06d}" for i in range(2)]
        for part, suffix, data in (("Annotations", "xml", self.whole), ("Data", "JPEG", b"")):
            for frame in frames:
                path = self.folder / part / "VID" / f"{frame}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        (self.folder / "ImageSets" / "VID").mkdir(parents=True, exist_ok=True)

    def make(self, rng: random.Random) -> Path:
        """Write an XML file with changed bytes, texts or elements, or in 15 % a changed list."""
        xml = self.folder / "Annotations" / "VID" / "val" / "v0" / "000000.xml"
        listed = self.folder / "ImageSets" / "VID" / "val.txt"
        xml.write_bytes(self.whole)
        listed.write_bytes(self.list)
        way = rng.random()
        if way < 0.15:
            listed.write_bytes(mutate_bytes(self.list, [self.list, self.whole], rng))
            return listed
        if way < 0.5:
            xml.write_bytes(mutate_bytes(self.whole, [self.whole], rng))
        else:
            xml.write_bytes(_mutate_xml(self.whole.decode(), rng))
        return xml

    def read(self, given: Path) -> None:
        """Convert the release."""
        target = self.folder / "out"
        shutil.rmtree(target, ignore_errors=True)
        convert(self.folder, target, ["vid_val"], console=Console(file=StringIO()))


def _coco() -> dict[str, Any]:
    images = [
        dict(id=i, file_name=f"{i}.png", height=64, width=64, video_id=1, frame_id=i)
        for i in range(4)
    ]
    annotations = [
        dict(id=i, image_id=i // 2, category_id=1 + i % 2, bbox=[4, 4, 20, 20], area=400, iscrowd=0)
        for i in range(6)
    ]
    categories = [dict(id=i, name=name) for i, name in enumerate(_CLASSES, 1)]
    videos = [dict(id=1, name="v0")]
    return dict(images=images, annotations=annotations, categories=categories, videos=videos)


def _xml(*synsets: str) -> str:
    things = "".join(
        f"<object><trackid>{i}</trackid><name>{name}</name><bndbox><xmax>30</xmax><xmin>2</xmin>"
        f"<ymax>40</ymax><ymin>3</ymin></bndbox><occluded>0</occluded><generated>0</generated>"
        "</object>"
        for i, name in enumerate(synsets)
    )
    size = "<size><width>64</width><height>48</height></size>"
    return f"<annotation><folder>v0</folder><filename>000000</filename>{size}{things}</annotation>"


def _mutate_xml(text: str, rng: random.Random) -> bytes:
    """Replace elements and texts, and prepend declarations and entities."""
    texts = ["30", "2", "64", "48", "width", "object", "bndbox", "name", "0", "xmin", "size"]
    odd = ["", "nan", "1e400", "-5", "9" * 5000, "1_0", "٣", "&bomb;", "&x;", "<a/>", "\0", "0x1F"]
    for _ in range(rng.randint(1, 4)):
        text = text.replace(rng.choice(texts), rng.choice([*odd, *texts]), rng.choice((1, 2, -1)))
    depth = rng.choice((0, 0, 0, 50, 20000))
    text = "<a>" * depth + text + "</a>" * depth
    front = rng.choice(_FRONTS)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin1"))
    return (front + text).encode(encoding, errors="replace")


_BOMB = "".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">' for i in range(1, 10))
_FRONTS = (
    "", "", "", '<?xml version="1.0" encoding="utf-16"?>', '<?xml version="1.0" encoding="none"?>',
    '<?xml version="1.0" encoding="shift_jis"?>', '<?xml version="9"?>', "\ufeff", " \n",
    f'<!DOCTYPE a [<!ENTITY b0 "b">{_BOMB}<!ENTITY bomb "&b9;">]>',
    '<!DOCTYPE a [<!ENTITY bomb SYSTEM "file:///etc/passwd">]>',
    '<?xml version="1.0" encoding="rot13"?>', '<?xml version="1.0" encoding="zip"?>',
)  # fmt: skip
