"""Records with missing fields, and boxes outside their pictures."""

from __future__ import annotations

import json
import re
import warnings

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.objects import check_objects, check_scored
from mmvitaccel.runner.config import load_config


@pytest.fixture
def check(detector_config, boxes):
    """Change the json of five pictures with two boxes each, check it, and return the warnings."""

    def run(change, kind: str = "CocoDataset") -> list[str]:
        path = boxes / "boxes.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        cfg = load_config(str(detector_config), {})
        cfg.train_dataloader.dataset.type = kind
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_objects(data_sets(cfg, "train"))
        return [str(warning.message) for warning in caught]

    return run


def put(key, index, **values):
    """Change a record; None removes the key."""

    def change(content):
        content[key][index].update(values)
        for name in [name for name, value in values.items() if value is None]:
            del content[key][index][name]

    return change


def each(change):
    def run(content):
        for annotation in content["annotations"]:
            change(annotation)

    return run


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("annotations", 2, area=None), r"boxes\.json: annotations\[2\] \(id 3\) has no 'area' "
                                           r"\(width x height of the box\); correct"),
        (put("annotations", 2, bbox=None), r"annotations\[2\] \(id 3\) has no 'bbox'"),
        (put("annotations", 2, image_id=None), r"annotations\[2\] \(id 3\) has no 'image_id'"),
        (put("annotations", 2, category_id=None), r"annotations\[2\] .* has no 'category_id'"),
        (put("annotations", 2, id=None), r"annotations\[2\] has no 'id'"),
        (put("images", 1, id=None), r"images\[1\] has no 'id'"),
        (put("images", 1, file_name=None), r"images\[1\] \(id 1\) has no 'file_name'"),
        (put("images", 1, height=None), r"images\[1\] \(id 1\) has no 'height'"),
        (put("images", 1, width="64"), r"images\[1\] .* has '64' as 'width' where a number is"),
        (put("images", 1, width=0, height=0), r"images\[1\] \(id 1\) has the size 0 x 0 pixels"),
        (put("images", 1, height=-4), r"images\[1\] \(id 1\) has the size 64 x -4 pixels"),
        (put("images", 1, id=0), r"images\[1\] \(id 0\) has the id of the picture 0\.png; correct"),
        (put("categories", 0, id=None), r"categories\[0\] has no 'id'"),
        (put("categories", 1, id=1), r"categories\[1\] .* has the id of the category 'bright'; "
                                     r"correct the file"),
        (put("annotations", 7, id=3), r"annotations\[7\] \(id 3\) has the id of another annot"
                                      r"ation, .*one box would be used for both; give each"),
        (put("categories", 1, name=None), r"categories\[1\] \(id 2\) has no 'name'"),
        (lambda c: c.pop("categories"), r"it has no list of records under 'categories'"),
        (lambda c: c.pop("images"), r"it has no list of records under 'images'"),
        (put("annotations", 2, area="576"), r"has '576' as 'area' where a number is needed"),
        (put("annotations", 2, bbox=[1, 2, 3]), r"has \[1, 2, 3\] as 'bbox' where x, y, width"),
        (put("annotations", 2, bbox=list("1234")), r"annotations\[2\] .* as 'bbox' where"),
        (put("annotations", 2, bbox=[1, 2, 3, float("nan")]), r"nan\] as 'bbox' where"),
        (put("annotations", 2, bbox=[10, 10, -5, 20]), r"\[10, 10, -5, 20\] as 'bbox', with a "
                                                       r"width or height below 0"),
        (lambda c: c["annotations"].__setitem__(2, None), r"annotations\[2\] is None, not an obj"),
        (each(lambda a: a.update(image_id=str(a["image_id"]))), r"10 of 10 annotations belong to "
         r"no picture that it lists, the first is annotations\[0\] \(id 1\) with image_id '0'"),
        (each(lambda a: a.update(bbox=[x / 64 for x in a["bbox"]])), r"10 of 10 boxes have a side "
         r"below one pixel.*no object is left; boxes are x, y, width, height in pixels"),
        (each(lambda a: a.update(area=0)), r"10 of 10 boxes .* area 0, in 0\.png of 64 x 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_entry(check, change, sentence):
    with pytest.raises(UserError, match=sentence):
        check(change)


@pytest.mark.parametrize("kind", ["CocoDataset", "mmvitaccel.ImageNetVID"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("annotations", 2, bbox=[50, 50, 40, 40]), r"1 of 10 boxes extend beyond their "
         r"picture, the first is annotations\[2\] \(id 3\), bbox \[50, 50, 40, 40\], area 576, in "
         r"1\.png of 64 x 64; correct"),
        (put("annotations", 2, bbox=[-9, 5, 20, 20]), r"1 of 10 boxes extend beyond"),
        (put("annotations", 2, bbox=[10, 10, 0, 20]), r"1 of 10 boxes have a side below one "
                                                      r"pixel.*ignored"),
        (put("annotations", 2, bbox=[70, 10, 9, 9]), r"1 of 10 boxes have .* lie outside their"),
        (put("annotations", 2, image_id=99), r"1 of 10 annotations belong to no .*image_id 99"),
        (each(lambda a: a.update(bbox=[*a["bbox"][:2], a["bbox"][0] + 24, a["bbox"][1] + 24])),
         r"boxes extend beyond .*all boxes would fit as x1, y1, x2, y2"),
    ],
)  # fmt: skip
def test_what_may_be_meant_is_one_warning(check, change, sentence, kind):
    (said,) = check(change, kind)
    assert re.search(sentence, said), said


@pytest.mark.parametrize(
    "change",
    [
        lambda c: None,
        lambda c: c.pop("annotations"),
        each(lambda a: a.pop("iscrowd")),
        put("annotations", 2, bbox=[-0.5, 0, 64.9, 64.5]),  # rounded
        put("annotations", 2, ignore=1, bbox=None),
    ],
)
def test_what_is_right_is_silent(check, change):
    assert check(change) == []


def test_other_ways_of_reading_are_left_alone(check):
    assert check(put("annotations", 2, bbox=None), "CocoPanopticDataset") == []


@pytest.fixture
def scored(boxes):
    """Change the json of the boxes and check what the metric reads."""

    def run(change) -> None:
        path = boxes / "boxes.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        check_scored(str(path))

    return run


def test_scoring_takes_each_annotation_by_its_id(scored):
    with pytest.raises(UserError, match=r"annotations\[7\] \(id 3\) has the id of another"):
        scored(put("annotations", 7, id=3))


def test_scoring_takes_0_for_none(scored):
    with pytest.warns(UserWarning, match=r"annotations\[7\] \(id 0\) has the id 0.* begin at 1"):
        scored(put("annotations", 7, id=0))


def outlines(value):
    return each(lambda a: a.update(segmentation=value))


def also(*changes):
    def run(content):
        for change in changes:
            change(content)

    return run


OUTLINE = outlines([[1, 1, 9, 1, 9, 9]])


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda c: None, True),
        (outlines([]), True),
        (OUTLINE, False),
        (also(OUTLINE, put("annotations", 2, segmentation=None)), True),
        (also(OUTLINE, put("annotations", 2, segmentation=None, bbox=[1, 1, 0, 9])), False),
        (also(OUTLINE, put("annotations", 2, segmentation=None, ignore=1)), False),
    ],
)
def test_masks_that_are_loaded_are_there(detector_config, boxes, change, refused):
    path = boxes / "boxes.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    cfg = load_config(str(detector_config), {})
    (steps,) = [s for s in cfg.train_dataloader.dataset.pipeline if s.type == "LoadAnnotations"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_objects(data_sets(cfg, "train"))
        steps.with_mask = True
        if not refused:
            check_objects(data_sets(cfg, "train"))
            return
        sentence = (
            r"annotations\[[02]\] .*no 'segmentation' with .*, but train_.*\.pipeline loads masks"
        )
        with pytest.raises(UserError, match=sentence):
            check_objects(data_sets(cfg, "train"))


def test_masks_of_classes_that_are_left_out_are_no_matter(detector_config, boxes):
    path = boxes / "boxes.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        if annotation["category_id"] == 1:
            annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    path.write_text(json.dumps(content))
    cfg = load_config(str(detector_config), {})
    dataset = cfg.train_dataloader.dataset
    for step in dataset.pipeline:
        if step.type == "LoadAnnotations":
            step.with_mask = True
    with pytest.raises(UserError, match="no 'segmentation'"):
        check_objects(data_sets(cfg, "train"))
    dataset.metainfo.classes = ("bright",)
    check_objects(data_sets(cfg, "train"))


@pytest.mark.parametrize("tool", ["train", "test"])
def test_scoring_needs_iscrowd_before_the_first_picture(
    run_tool, detector_config, boxes, tmp_path, capsys, tool
):
    path = boxes / "boxes.json"
    content = json.loads(path.read_text())
    del content["annotations"][4]["iscrowd"]
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        run_tool(tool, detector_config, *([tmp_path / "none.pth"] if tool == "test" else []))
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "boxes.json: annotations[4] (id 5) has no 'iscrowd'" in error
    assert "to each annotation that is not a crowd" in error


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf{}", '{"images": []}'.encode("utf-16"), b'{"images": [{"id": 1, "he'],
    ids=["BOM", "UTF-16", "cut short"],
)
def test_a_json_that_cannot_be_decoded_is_named(run_tool, detector_config, boxes, capsys, content):
    (boxes / "boxes.json").write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config)
    assert caught.value.code == 2
    assert "boxes.json" in capsys.readouterr().err.splitlines()[-1]


def test_objects_that_are_passed_over(check):
    (said,) = check(each(lambda a: a.update(iscrowd=1)))
    assert "boxes.json: all 10 annotations that count have iscrowd=1, and such objects are " in said
    (said,) = check(each(lambda a: a.update(ignore=1)))
    assert "boxes.json: all 10 annotations that count have ignore=1" in said
    assert check(each(lambda a: a.update(iscrowd=a["id"] % 2, ignore=0))) == []


def test_pictures_of_one_file(check):
    (said,) = check(put("images", 1, file_name="0.png"))
    assert "boxes.json: 1 pictures have the file of another picture, the first is images[1]" in said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_json_of_another_encoding(detector_config, boxes, encoding):
    path = boxes / "boxes.json"
    path.write_bytes(path.read_text().encode(encoding))
    cfg = load_config(str(detector_config), {})
    with pytest.raises(UserError, match=rf"boxes\.json .*{encoding.upper()}"):
        check_objects(data_sets(cfg, "train"))


def test_masks_of_two_points(detector_config, boxes):
    def checked(mask_of, split="train"):
        path = boxes / "boxes.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = mask_of(annotation)
        path.write_text(json.dumps(content))
        cfg = load_config(str(detector_config), {})
        steps = cfg[f"{split}_dataloader"].dataset.pipeline
        next(step for step in steps if step.type == "LoadAnnotations").with_mask = True
        check_objects(data_sets(cfg, split))

    whole, line = [[1, 1, 9, 1, 9, 9]], [[1, 1, 9, 9]]
    with pytest.raises(
        UserError, match=r"of 10 of 10 objects have less than three points, the fir"
    ):
        checked(lambda annotation: line)
    with pytest.warns(UserWarning, match=r"the masks of 10 of 10 objects .* they are ignored"):
        checked(lambda annotation: line, "val")  # boxes are scored all the same
    with pytest.warns(UserWarning, match=r"the masks of 1 of 10 objects .* they are ignored"):
        checked(lambda annotation: line if annotation["id"] == 3 else whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(lambda annotation: whole)
