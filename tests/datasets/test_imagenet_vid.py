from __future__ import annotations

import json

import pytest
from mmengine.dataset import pseudo_collate

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.datasets import ImageNetVID
from mmvitaccel.registry import DATASETS

CLASSES = {"classes": ("cat", "dog")}
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "video_id",
             "frame_id", "video_length")  # fmt: skip


def build(ann_file, metainfo=CLASSES, **kwargs) -> ImageNetVID:
    kwargs.setdefault("test_mode", True)
    return DATASETS.build(
        dict(
            type="mmvitaccel.ImageNetVID",
            ann_file=str(ann_file),
            data_prefix=dict(img=str(ann_file.parent)),
            metainfo=metainfo,
            **kwargs,
        )
    )


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def places(dataset) -> list[tuple[int, int, int]]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(info["video_id"], info["frame_id"], info["img_id"]) for info in infos]


def test_thirty_classes_in_the_official_order():
    classes = ImageNetVID.METAINFO["classes"]
    assert len(classes) == 30 and list(classes) == sorted(classes)
    assert classes[0] == "airplane" and classes[9] == "domestic_cat" and classes[29] == "zebra"


def test_one_item_is_one_frame(write_cocovid):
    dataset = build(write_cocovid(lengths=(5, 5)))
    assert len(dataset) == 10
    info = dataset.get_data_info(7)
    assert info["video_id"] == 2 and info["frame_id"] == 2 and info["video_length"] == 5
    assert info["img_path"].endswith("video2/000002.png")
    assert [obj["bbox_label"] for obj in info["instances"]] == [0, 1]


def test_order_of_the_json_does_not_matter(write_cocovid):
    in_order = places(build(write_cocovid(lengths=(4, 3, 2), name="a.json")))
    shuffled = places(build(write_cocovid(lengths=(4, 3, 2), name="b.json", shuffle=1)))
    assert in_order == shuffled
    assert [p[:2] for p in in_order] == sorted(p[:2] for p in in_order)


def test_frames_sort_by_number_not_by_image_id(write_cocovid):
    path = write_cocovid(lengths=(4,))

    def reverse(content):
        for image in content["images"]:
            image["frame_id"] = 3 - image["frame_id"]

    edit(path, reverse)
    assert places(build(path)) == [(1, 0, 4), (1, 1, 3), (1, 2, 2), (1, 3, 1)]


def test_training_keeps_marked_frames_only(write_cocovid):
    path = write_cocovid(lengths=(5, 4), train_frames=(1, 3))
    dataset = build(path, test_mode=False)
    assert [p[:2] for p in places(dataset)] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert dataset.get_data_info(0)["video_length"] == 5
    assert len(build(path, test_mode=True)) == 9


def test_training_on_a_json_without_marks_keeps_all(write_cocovid):
    path = write_cocovid(lengths=(3,))
    edit(path, lambda content: [image.pop("is_vid_train_frame") for image in content["images"]])
    assert len(build(path, test_mode=False)) == 3


def test_training_on_the_evaluation_split_is_refused(write_cocovid):
    path = write_cocovid(lengths=(5, 5))
    with pytest.raises(ValueError, match=r"none of the 10 images.*vid\.json.*is_vid_train_frame"):
        build(path, test_mode=False)


def det_json(write_cocovid, name="det.json"):
    """Images without video fields, in the layout of mmtracking's DET json."""
    path = write_cocovid(lengths=(4,), classes=("cat", "dog", "other_categeries"), name=name)

    def strip(content):
        del content["videos"]
        for image in content["images"]:
            del image["video_id"], image["frame_id"]
            image["is_vid_train_frame"] = image["id"] != 4

    edit(path, strip)
    return path


def test_det_images_are_videos_of_one_frame(write_cocovid):
    dataset = build(det_json(write_cocovid), test_mode=False)
    assert len(dataset) == 3
    infos = [dataset.get_data_info(i) for i in range(3)]
    assert len({info["video_id"] for info in infos}) == 3
    assert all(info["frame_id"] == 0 and info["video_length"] == 1 for info in infos)
    labels = [obj["bbox_label"] for info in infos for obj in info["instances"]]
    assert set(labels) == {0, 1}, "the category that stands for all others must be left out"


def test_vid_and_det_mix(write_cocovid):
    vid = write_cocovid(lengths=(3, 3), train_frames=(0, 2), name="train.json")
    det = det_json(write_cocovid)
    parts = [
        dict(
            type="mmvitaccel.ImageNetVID",
            ann_file=str(path),
            data_prefix=dict(img=str(path.parent)),
            metainfo=CLASSES,
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )
        for path in (vid, det)
    ]
    both = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
    assert len(both) == 4 + 3
    assert {both.get_data_info(i)["video_length"] for i in range(len(both))} == {3, 1}


def test_frames_without_objects_are_filtered_in_training_only(write_cocovid):
    path = write_cocovid(lengths=(3,), train_frames=(0, 1, 2))

    def empty_first(content):
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]

    edit(path, empty_first)
    filter_cfg = dict(filter_empty_gt=True, min_size=32)
    assert len(build(path, test_mode=False, filter_cfg=filter_cfg)) == 2
    assert len(build(path, test_mode=True, filter_cfg=filter_cfg)) == 3


def test_an_area_that_is_missing_is_the_boxes(write_cocovid):
    path = write_cocovid(lengths=(2,))
    edit(path, lambda content: [a.pop("area") for a in content["annotations"]])
    assert [len(build(path).get_data_info(i)["instances"]) for i in range(2)] == [2, 2]


def test_categories_are_matched_by_name(write_cocovid):
    path = write_cocovid(lengths=(2,))
    swapped = build(path, metainfo={"classes": ("dog", "cat")})
    assert [obj["bbox_label"] for obj in swapped.get_data_info(0)["instances"]] == [1, 0]


def test_a_json_of_other_classes_is_refused(write_cocovid):
    with pytest.raises(ValueError, match=r"\['boat', 'person'\] but none of the 30"):
        build(write_cocovid(classes=("person", "boat")), metainfo=None)


def test_metainfo_reaches_the_packed_sample(write_cocovid):
    path = write_cocovid(lengths=(2, 3))
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="mmdet.Resize", scale=(32, 20), keep_ratio=True),
        dict(type="mmdet.LoadAnnotations", with_bbox=True),
        dict(type="mmdet.PackDetInputs", meta_keys=META_KEYS),
    ]
    dataset = build(path, pipeline=pipeline)
    batch = pseudo_collate([dataset[3]])
    sample = batch["data_samples"][0]
    assert (sample.video_id, sample.frame_id, sample.video_length) == (2, 1, 3)
    assert batch["inputs"][0].shape == (3, 20, 27)
    assert len(sample.gt_instances.bboxes) == 2


def test_missing_json_names_the_file_and_the_converter(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"imagenet_vid_val\.json.*imagenet_vid\.py"):
        build(tmp_path / "imagenet_vid_val.json")


def test_json_cut_short(write_cocovid):
    path = write_cocovid()
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match=r"vid\.json is not json or was cut short"):
        build(path)


@pytest.mark.parametrize("key", ["images", "videos"])
@pytest.mark.parametrize("size", [(0, 0), (0, 9), (9, -1)])
def test_a_picture_or_video_without_a_pixel_is_refused(write_cocovid, key, size):
    path = write_cocovid()
    edit(path, lambda content: content[key][1].update(width=size[0], height=size[1]))
    said = rf"{key}\[1\] of .*vid\.json is {size[0]} x {size[1]} pixels"
    with pytest.raises(ValueError, match=said):
        build(path)


@pytest.mark.parametrize("content", ["[]", '{"images": []}'])
def test_json_of_another_kind(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json has no images and no categories"):
        build(path)


def test_frame_without_number(write_cocovid):
    path = write_cocovid()
    edit(path, lambda content: content["images"][3].pop("frame_id"))
    with pytest.raises(ValueError, match=r"image 4 of .* has video_id 1 but no frame_id"):
        build(path)


def test_same_frame_twice(write_cocovid):
    path = write_cocovid()
    edit(path, lambda content: content["images"][1].update(frame_id=0))
    with pytest.raises(ValueError, match=r"frame 0 of video 1 twice \(images 1 and 2\)"):
        build(path)
