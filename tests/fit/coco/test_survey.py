"""Survey of COCO json files: invalid records, and boxes outside their picture."""

from __future__ import annotations

import json

import pytest

from mmvitaccel.fit.coco.survey import survey

IMAGE = dict(id=1, file_name="a.jpg", width=100, height=80)
CATEGORY = dict(id=3, name="cat")
BOX = dict(id=5, image_id=1, category_id=3, bbox=[10, 20, 30, 40], area=1200, iscrowd=0)


@pytest.fixture
def surveyed(tmp_path):
    """Survey a json with these annotations; keywords replace its other parts."""

    def write(*annotations, **parts):
        content = dict(images=[IMAGE], categories=[CATEGORY], annotations=list(annotations))
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps({**content, **parts}))
        return survey(str(path))

    return write


def test_a_good_file_lacks_nothing(surveyed):
    found = surveyed(BOX, {**BOX, "id": "six"}, {**BOX, "ignore": 1, "bbox": None})
    assert (found.total, found.lacking, found.no_crowd) == (2, "", "")
    assert found.unlisted.count == found.empty.count == found.beyond.count == 0


def test_ids_written_as_floats_are_the_whole_numbers(surveyed):
    image, category = {**IMAGE, "id": 1.0}, {**CATEGORY, "id": 3.0}
    boxes = [{**BOX, "id": float(i), "image_id": 1.0} for i in (1, 2)]
    found = surveyed(*boxes, images=[image], categories=[category])
    assert (found.total, found.lacking, found.double, found.unlisted.count) == (2, "", "", 0)


def test_flags_of_annotations(surveyed):
    crowd, ignored = {**BOX, "id": 6, "iscrowd": 1}, {**BOX, "id": 7, "ignore": True}
    found = surveyed(BOX, crowd, ignored)
    assert (found.total, found.crowds, found.ignored, found.lacking) == (2, 1, 1, "")
    assert surveyed({**BOX, "iscrowd": None}).no_crowd.startswith("annotations[0]")


def test_files_that_two_pictures_have(surveyed):
    other = {**IMAGE, "id": 2}
    found = surveyed(BOX, images=[IMAGE, other, {**IMAGE, "id": 3, "file_name": "b.jpg"}])
    assert (found.copies.count, found.copies.first) == (1, "images[1] (id 2), a.jpg as id 1")


def test_annotations_that_are_no_list(surveyed, tmp_path):
    lacking = "it has no list of records under 'annotations'"
    assert surveyed(BOX, annotations=None).lacking == lacking
    assert surveyed(BOX, annotations={"1": BOX}).lacking == lacking
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(dict(images=[IMAGE], categories=[CATEGORY])))
    # as the json of COCO's test pictures
    assert survey(str(bare)).lacking == ""


@pytest.mark.parametrize(
    ("record", "lacking"),
    [
        (
            {**BOX, "id": 0.5},
            "annotations[1] (id 0.5) has 0.5 as 'id' where a whole number or a text is needed",
        ),
        (
            {**BOX, "iscrowd": "0"},
            "annotations[1] (id 5) has '0' as 'iscrowd' where 0 or 1 is needed",
        ),
        (
            {**BOX, "ignore": "0"},
            "annotations[1] (id 5) has '0' as 'ignore' where 0 or 1 is needed",
        ),
        (7, "annotations[1] is 7, not an object"),
        (
            {**BOX, "id": None},
            "annotations[1] has None as 'id' where a whole number or a text is needed",
        ),
        (
            {**BOX, "image_id": [1]},
            "annotations[1] (id 5) has [1] as 'image_id' where a whole number or a text is needed",
        ),
        ({"id": 5, "image_id": 1}, "annotations[1] (id 5) has no 'category_id'"),
        ({k: v for k, v in BOX.items() if k != "bbox"}, "annotations[1] (id 5) has no 'bbox'"),
        (
            {**BOX, "bbox": [1, 2, 3]},
            "annotations[1] (id 5) has [1, 2, 3] as 'bbox' where x, y, width and height are needed",
        ),
        (
            {**BOX, "bbox": [1, 2, 3, None]},
            "annotations[1] (id 5) has [1, 2, 3, None] as 'bbox' where x, y, width and height are "
            "needed",
        ),
        (
            {**BOX, "bbox": [1, 2, 3, -1]},
            "annotations[1] (id 5) has [1, 2, 3, -1] as 'bbox', with a width or height below 0",
        ),
        (
            {k: v for k, v in BOX.items() if k != "area"},
            "annotations[1] (id 5) has no 'area' (width x height of the box)",
        ),
        (
            {**BOX, "area": "x"},
            "annotations[1] (id 5) has 'x' as 'area' where a number is needed",
        ),
    ],
)
def test_the_first_lacking_annotation_is_named_and_not_counted(surveyed, record, lacking):
    found = surveyed(BOX, record, 8, {**BOX, "id": 9})
    assert found.lacking == lacking
    assert found.total == 2


@pytest.mark.parametrize(
    ("parts", "lacking"),
    [
        (dict(images=None), "it has no list of records under 'images'"),
        (dict(categories=[3]), "it has no list of records under 'categories'"),
        (dict(categories=[dict(id=3)]), "categories[0] (id 3) has no 'name'"),
        (
            dict(images=[IMAGE, {**IMAGE, "id": 2, "width": "9"}]),
            "images[1] (id 2) has '9' as 'width' where a number is needed",
        ),
        (
            dict(images=[{**IMAGE, "height": float("inf")}]),
            "images[0] (id 1) has inf as 'height' where a number is needed",
        ),
        (
            dict(images=[{**IMAGE, "file_name": 4}]),
            "images[0] (id 1) has 4 as 'file_name'",
        ),
        (
            dict(images=[IMAGE, {**IMAGE, "file_name": "b.jpg"}]),
            "images[1] (id 1) has the id of the picture a.jpg",
        ),
    ],
)
def test_lacking_pictures_and_categories_are_named(surveyed, parts, lacking):
    assert surveyed(**parts).lacking == lacking
    assert surveyed(7, **parts).lacking == lacking  # the first of several


def test_a_picture_may_be_named_by_its_address(surveyed):
    image = dict(id=1, coco_url="http://x/a.jpg", width=100, height=80)
    found = surveyed({**BOX, "bbox": [0, 0, 0, 5]}, images=[image])
    assert found.lacking == ""
    assert "in http://x/a.jpg of 100 x 80" in found.empty.first


def test_annotations_without_iscrowd_or_picture_are_counted(surveyed):
    lone = {k: v for k, v in BOX.items() if k != "iscrowd"}
    found = surveyed(BOX, {**lone, "id": 6}, {**lone, "id": 7}, {**BOX, "id": 8, "image_id": 2})
    assert found.no_crowd == "annotations[1] (id 6)"
    assert (found.unlisted.count, found.unlisted.first) == (
        1,
        "annotations[3] (id 8) with image_id 2",
    )


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([0, 0, 100, 80], None),
        ([-1, -1, 102, 82], None),  # a pixel for rounding
        ([99, 79, 1, 1], None),
        ([-1.5, 0, 50, 50], "beyond"),
        ([0, -1.5, 50, 50], "beyond"),
        ([0, 0, 101.5, 50], "beyond"),
        ([0, 0, 50, 81.5], "beyond"),
        ([100, 0, 5, 5], "empty"),
        ([0, 80, 5, 5], "empty"),
        ([-5, 0, 5, 5], "empty"),
        ([0, -5, 5, 5], "empty"),
        ([0, 0, 0.9, 5], "empty"),
        ([0, 0, 5, 0.9], "empty"),
    ],
)
def test_boxes_are_compared_with_their_picture(surveyed, bbox, kind):
    found = surveyed({**BOX, "bbox": bbox})
    assert found.total == 1 and found.lacking == ""
    assert (found.empty.count, found.beyond.count) == (kind == "empty", kind == "beyond")
    if kind is not None:
        words = f"annotations[0] (id 5), bbox {bbox}, area 1200, in a.jpg of 100 x 80"
        assert getattr(found, kind).first == words


def test_a_box_without_an_area_is_empty(surveyed):
    assert surveyed({**BOX, "area": 0}).empty.count == 1


def test_boxes_of_corners_are_noticed_only_if_all_could_be(surveyed):
    assert surveyed(BOX, {**BOX, "bbox": [40, 30, 100, 80]}).corners
    for bbox in ([40, 30, 39, 80], [40, 30, 100, 29], [40, 30, 102, 80], [40, 30, 100, 82]):
        assert not surveyed(BOX, {**BOX, "bbox": bbox}).corners


@pytest.mark.parametrize(
    ("mask", "no_mask", "no_area"),
    [
        ([[1, 2, 3, 4, 5, 6]], 0, 0),
        ([[1, 2], [1, 2, 3, 4, 5, 6]], 0, 0),
        (dict(size=[80, 100], counts=[0, 8000]), 0, 0),
        ([[1, 2, 3, 4]], 0, 1),
        ([[1, 2, 3, 4, 5, 6, 7]], 0, 1),
        (dict(size=[80, 100]), 0, 1),
        ([1, 2, 3, 4, 5, 6], 1, 0),
        ("text", 1, 0),
        ([], 1, 0),
        (None, 1, 0),
    ],
)
def test_masks(surveyed, mask, no_mask, no_area):
    found = surveyed({**BOX, "segmentation": mask})
    assert (len(found.no_mask), found.no_area.count) == (no_mask, no_area)
