from __future__ import annotations

import json
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.pictures import ComparePictureSize, _turned_size, check_picture_sizes
from mmvitaccel.runner.config import load_config


@pytest.fixture
def turned(boxes):
    """A data set with a picture of 64 x 32 that EXIF rotates; its json has the stored size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(boxes / "images" / "3.jpg", exif=exif)
    path = boxes / "boxes.json"
    content = json.loads(path.read_text())
    content["images"][3].update(file_name="3.jpg", width=64, height=32)
    path.write_text(json.dumps(content))
    return path


def test_a_sample_before(detector_config, turned):
    sets = data_sets(load_config(str(detector_config), {}), "train")
    with pytest.warns(UserWarning, match=r"images/3\.jpg is 32 x 64 pixels when loaded, but its "
                                         r"annotation says 64 x 32 \(probably rot"):  # fmt: skip
        check_picture_sizes(sets)


@pytest.mark.parametrize(("turn", "what"), [(2, "mirrored"), (3, "rotated by 180 degrees")])
def test_a_turn_that_keeps_the_size(detector_config, boxes, turn, what):
    exif = Image.Exif()
    exif[0x0112] = turn
    with Image.open(boxes / "images" / "3.png") as picture:
        picture.save(boxes / "images" / "3.jpg", exif=exif)
    path = boxes / "boxes.json"
    path.write_text(path.read_text().replace("3.png", "3.jpg"))
    sets = data_sets(load_config(str(detector_config), {}), "train")
    sentence = rf"3\.jpg is {what} when loaded, because of its EXIF orientation {turn}\. .* a box"
    with pytest.warns(UserWarning, match=sentence):
        check_picture_sizes(sets)


@pytest.mark.parametrize("name", ["3.jpg", "3.png", "3.tif", "3.webp"])
@pytest.mark.parametrize("turn", [1, 6, 8])
def test_the_size_is_the_one_that_is_loaded(tmp_path, name, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = str(tmp_path / name)
    Image.new("RGB", (64, 32)).save(path, exif=exif)
    loaded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)  # as mmcv does
    assert _turned_size(path)[0] == loaded.shape[:2]


def test_pictures_that_fit_are_silent(detector_config, boxes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_picture_sizes(data_sets(load_config(str(detector_config), {}), "train"))


def test_one_warning_for_all_that_are_loaded():
    step = ComparePictureSize()
    results = dict(img_path="a.jpg", ori_shape=(64, 32), height=32, width=64)
    with pytest.warns(UserWarning, match=r"a\.jpg is 32 x 64 .* says 64 x 32") as caught:
        assert step(results) is results
        step(results | dict(img_path="b.jpg"))
    assert len(caught) == 1


def test_a_training_warns_when_it_loads_the_picture(run_tool, detector_config, turned, recwarn):
    off = ["val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    run_tool("train", detector_config, "--work-dir", "run", "--cfg-options", *off)
    said = [w for w in recwarn if "3.jpg is 32 x 64 pixels" in str(w.message)]
    # of the sample and of the first load: by default Python shows one text of one line once
    assert len(said) == 2
