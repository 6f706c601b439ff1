from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from mmvitaccel.datasets import ImageNetVID
from mmvitaccel.datasets.ilsvrc.layout import spread_train_frames

TOOL = Path(__file__).parents[2] / "tools" / "dataset_converters" / "imagenet_vid.py"
DOG, CAT, AIRPLANE, CHAIR = "n02084071", "n02121808", "n02691156", "n03001627"
TRAIN = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_0000{}000"
NEW = "train/ILSVRC2017_VID_train_0000/ILSVRC2017_train_00000000"
VAL = "val/ILSVRC2015_val_00000000"


@pytest.fixture
def tool(capsys):
    """Run the tool; gives its exit status, and what it printed with line breaks as spaces."""
    spec = importlib.util.spec_from_file_location("imagenet_vid_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments) -> tuple[int, str]:
        capsys.readouterr()
        try:
            module.main([str(argument) for argument in arguments])
            status = 0
        except SystemExit as end:
            status = end.code
        streams = capsys.readouterr()
        return status, " ".join((streams.out + streams.err).split())

    return run


def xml(objects, size=(90, 160)) -> str:
    """An annotation of (synset, track or None, box[, occluded, generated]) objects."""
    things = []
    for synset, track, (x1, y1, x2, y2), *flags in objects:
        of_video = ""
        if track is not None:
            occluded, generated = flags or (0, 0)
            of_video = (
                f"<trackid>{track}</trackid><occluded>{occluded}</occluded>"
                f"<generated>{generated}</generated>"
            )
        things.append(
            f"<object><name>{synset}</name><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin>"
            f"<ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox>{of_video}</object>"
        )
    height, width = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"{''.join(things)}</annotation>"
    )


def put(root, kind, name, objects=()) -> None:
    for folder, suffix, text in (("Annotations", "xml", xml(objects)), ("Data", "JPEG", "")):
        path = root / folder / kind / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def put_video(root, name, num_frames) -> None:
    for frame in range(num_frames):
        put(root, "VID", f"{name}/{frame:06d}", [(DOG, 0, (frame, 2, frame + 20, 30))])


def release(root) -> Path:
    """Two training videos, one to test on, two images of DET."""
    put_video(root, TRAIN.format(0), 30)
    put_video(root, TRAIN.format(1), 3)
    put_video(root, VAL, 2)
    put(root, "DET", "train/ILSVRC2014_train_0000/ILSVRC2014_train_00000001", [
        (CHAIR, None, (0, 0, 9, 9)), (CAT, None, (5, 6, 50, 60)),
    ])  # fmt: skip
    put(root, "DET", "train/ILSVRC2013_train/n03001627/n03001627_1", [(CHAIR, None, (0, 0, 5, 5))])
    return root


def write_list(root, name, *lines, folder="Lists") -> None:
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read(path) -> dict:
    return json.loads(path.read_text())


def test_frames_and_objects_are_written_as_mmtracking_writes_them(tmp_path, tool):
    name = TRAIN.format(0)
    put(tmp_path, "VID", f"{name}/000000", [(CAT, 7, (3, 4, 33, 24), 1, 0)])
    put(tmp_path, "VID", f"{name}/000001", [
        (DOG, 9, (1, 2, 11, 22), 0, 1), (CHAIR, 1, (0, 0, 5, 5)), (CAT, 7, (4, 4, 34, 24)),
    ])  # fmt: skip
    put(tmp_path, "VID", f"{name}/000002")
    put(tmp_path, "VID", f"{TRAIN.format(1)}/000000", [(CAT, 7, (0, 0, 2, 3))])
    write_list(
        tmp_path,
        "VID_train_15frames.txt",
        f"{name} 1 2 3",
        f"{name} 1 0 3",
        f"{TRAIN.format(1)} 1 1 1",
    )
    status, printed = tool("-i", tmp_path, "-o", tmp_path / "out")
    assert status == 0, printed
    content = read(tmp_path / "out" / "imagenet_vid_train.json")
    assert content["videos"] == [
        {"id": 1, "name": name, "vid_train_frames": [1, -1]},
        {"id": 2, "name": TRAIN.format(1), "vid_train_frames": [0]},
    ]
    common = {"height": 90, "width": 160}
    assert content["images"] == [
        {"file_name": f"{name}/000000.JPEG", **common, "id": 1, "frame_id": 0, "video_id": 1,
         "is_vid_train_frame": False},
        {"file_name": f"{name}/000001.JPEG", **common, "id": 2, "frame_id": 1, "video_id": 1,
         "is_vid_train_frame": True},
        {"file_name": f"{name}/000002.JPEG", **common, "id": 3, "frame_id": 2, "video_id": 1,
         "is_vid_train_frame": False},
        {"file_name": f"{TRAIN.format(1)}/000000.JPEG", **common, "id": 4, "frame_id": 0,
         "video_id": 2, "is_vid_train_frame": True},
    ]  # fmt: skip
    assert content["annotations"] == [
        {"id": 1, "video_id": 1, "image_id": 1, "category_id": 10, "instance_id": 1,
         "bbox": [3, 4, 30, 20], "area": 600, "iscrowd": False, "occluded": True,
         "generated": False},
        {"id": 2, "video_id": 1, "image_id": 2, "category_id": 9, "instance_id": 2,
         "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": False, "occluded": False,
         "generated": True},
        {"id": 3, "video_id": 1, "image_id": 2, "category_id": 10, "instance_id": 1,
         "bbox": [4, 4, 30, 20], "area": 600, "iscrowd": False, "occluded": False,
         "generated": False},
        {"id": 4, "video_id": 2, "image_id": 4, "category_id": 10, "instance_id": 3,
         "bbox": [0, 0, 2, 3], "area": 6, "iscrowd": False, "occluded": False,
         "generated": False},
    ]  # fmt: skip
    assert len(content["categories"]) == 30
    assert content["categories"][0] == {"id": 1, "name": "airplane", "encode_name": AIRPLANE}
    assert "4 images (2 to train on, 1 without objects), 4 objects" in printed


@pytest.mark.parametrize(
    ("num_frames", "frames"),
    [
        (300, range(10, 300, 20)),
        (48, (1, 4, 8, 11, 14, 17, 20, 24, 27, 30, 33, 36, 40, 43, 46)),
        (26, (0, 2, 4, 6, 7, 9, 11, 13, 14, 16, 18, 19, 21, 23, 25)),
        (1749, (58, 174, 291, 408, 524, 641, 757, 874, 991, 1107, 1224, 1340, 1457, 1574, 1690)),
    ],
)
def test_training_frames_are_those_of_the_shared_list(num_frames, frames):
    """Expected are lines of VID_train_15frames.txt; mmtracking reads them one lower."""
    assert spread_train_frames(num_frames) == [frame - 1 for frame in frames]


@pytest.mark.parametrize("folder", [".", "ILSVRC2015", "ILSVRC", "ILSVRC2017"])
def test_layouts_of_both_releases_without_lists(tmp_path, tool, folder):
    release(tmp_path / folder)
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    out = tmp_path / folder / "annotations"
    train, val = read(out / "imagenet_vid_train.json"), read(out / "imagenet_vid_val.json")
    assert [video["name"] for video in train["videos"]] == [TRAIN.format(0), TRAIN.format(1)]
    assert len(train["images"]) == 33 and len(val["images"]) == 2
    marked = [i["frame_id"] for i in train["images"] if i["is_vid_train_frame"]]
    # 30 frames: the odd ones of the list, one lower; 3 frames: 0, 1, 2 of the list, one lower
    assert marked == [*range(0, 30, 2), 0, 1]
    assert not any(image["is_vid_train_frame"] for image in val["images"])
    assert str(tmp_path / folder / "Data" / "VID") in printed


def test_det_subset_with_and_without_its_list(tmp_path, tool):
    root = release(tmp_path)
    assert tool("-i", root, "--sets", "det")[0] == 0
    content = read(root / "annotations" / "imagenet_det_30plus1cls.json")
    assert content["categories"][30] == {"id": 31, "name": "other_categeries", "encode_name": None}
    assert "videos" not in content
    assert content["images"] == [
        {"file_name": "train/ILSVRC2014_train_0000/ILSVRC2014_train_00000001.JPEG", "height": 90,
         "width": 160, "id": 1, "is_vid_train_frame": True},
    ]  # fmt: skip
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 31, "bbox": [0, 0, 9, 9], "area": 81,
         "iscrowd": False},
        {"id": 2, "image_id": 1, "category_id": 10, "bbox": [5, 6, 45, 54], "area": 2430,
         "iscrowd": False},
    ]  # fmt: skip
    listed = "train/ILSVRC2013_train/n03001627/n03001627_1"
    write_list(root, "DET_train_30classes.txt", f"{listed} 1", folder="ImageSets")
    assert tool("-i", root, "--sets", "det")[0] == 0
    content = read(root / "annotations" / "imagenet_det_30plus1cls.json")
    assert [image["file_name"] for image in content["images"]] == [f"{listed}.JPEG"]


def test_imagenets_own_frame_lists_are_used(tmp_path, tool):
    root = release(tmp_path)
    name = VAL.removeprefix("val/")
    lines = [f"{name}/{frame:06d} {frame + 1}" for frame in range(2)]
    write_list(root, "val.txt", *lines, folder="ImageSets/VID")
    status, printed = tool("-i", root, "--sets", "vid_val")
    assert status == 0 and "ImageSets/VID/val.txt" in printed
    assert len(read(root / "annotations" / "imagenet_vid_val.json")["images"]) == 2


def test_videos_new_in_2017_are_named_and_can_be_taken(tmp_path, tool):
    root = release(tmp_path)
    put_video(root, NEW, 2)
    write_list(root, "VID_train_15frames.txt", f"{TRAIN.format(0)} 1 10 30")
    status, printed = tool("-i", root, "--sets", "vid_train")
    assert status == 0
    assert (
        f"2 videos on disk are in no list and left out, the first is {TRAIN.format(1)}" in printed
    )
    content = read(root / "annotations" / "imagenet_vid_train.json")
    assert [video["name"] for video in content["videos"]] == [TRAIN.format(0)]
    assert tool("-i", root, "--sets", "vid_train", "--from-folders")[0] == 0
    content = read(root / "annotations" / "imagenet_vid_train.json")
    assert [video["name"] for video in content["videos"]][-1] == NEW


def test_missing_files_are_named_and_nothing_is_written(tmp_path, tool):
    root = release(tmp_path)
    gone = [
        root / "Annotations" / "VID" / TRAIN.format(0) / "000004.xml",
        root / "Data" / "VID" / TRAIN.format(1) / "000001.JPEG",
    ]
    for path in gone:
        path.unlink()
    status, printed = tool("-i", root)
    assert status == 2
    assert "error: 2 files are missing or broken" in printed
    assert all(str(path) in printed for path in gone)
    out = root / "annotations"
    assert [path.name for path in out.iterdir()] == ["missing_files.txt"]
    assert (out / "missing_files.txt").read_text().splitlines() == [str(path) for path in gone]


def test_missing_files_can_be_left_out(tmp_path, tool):
    root = release(tmp_path)
    (root / "Data" / "VID" / TRAIN.format(0) / "000004.JPEG").unlink()
    (root / "Annotations" / "VID" / VAL / "000001.xml").write_text("<annotation><si")
    status, printed = tool("-i", root, "--skip-missing")
    assert status == 0 and "left out: 2 files are missing or broken" in printed
    train = read(root / "annotations" / "imagenet_vid_train.json")
    assert len(train["images"]) == 32
    assert 4 not in [image["frame_id"] for image in train["images"] if image["video_id"] == 1]
    assert len(read(root / "annotations" / "imagenet_vid_val.json")["images"]) == 1


def test_a_video_that_the_list_has_and_the_disk_has_not(tmp_path, tool):
    root = release(tmp_path)
    write_list(root, "VID_val_videos.txt", f"{VAL} 1 0 2", "val/ILSVRC2015_val_00000001 3 0 40")
    status, printed = tool("-i", root)
    assert status == 2
    assert "80 files are missing" in printed and "and 70 more" in printed
    assert "ILSVRC2015_val_00000001/000000.xml" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation><object>", "not readable as xml"),
        ("<annotation></annotation>", "<annotation> has no size/height"),
        (xml([]).replace("</annotation>", "<object></object></annotation>"), "no bndbox/xmin"),
    ],
)
def test_broken_annotations_are_named(tmp_path, tool, text, said):
    root = release(tmp_path)
    path = root / "Annotations" / "VID" / VAL / "000001.xml"
    path.write_text(text)
    status, printed = tool("-i", root)
    assert status == 2 and str(path) in printed and said in printed


def test_a_list_of_another_form(tmp_path, tool):
    root = release(tmp_path)
    write_list(root, "VID_val_videos.txt", "<!DOCTYPE html>")
    status, printed = tool("-i", root)
    assert status == 2
    assert "line 1 of" in printed and "VID_val_videos.txt is '<!DOCTYPE html>'" in printed


def test_nothing_to_convert(tmp_path, tool):
    status, printed = tool("-i", tmp_path)
    assert status == 2
    assert f"{tmp_path}/Annotations/VID/train" in printed and "unpack the archives" in printed


def test_a_set_that_is_asked_for_must_be_there(tmp_path, tool):
    put_video(tmp_path, VAL, 2)
    status, printed = tool("-i", tmp_path, "--sets", "vid_val", "det")
    assert status == 2 and "Annotations/DET/train" in printed
    status, printed = tool("-i", tmp_path)
    assert status == 0 and "det: left out, there is no" in printed


def test_the_dataset_reads_what_was_written(tmp_path, tool):
    root = release(tmp_path)
    assert tool("-i", root)[0] == 0
    sizes = {}
    for name, kind, test_mode in (
        ("imagenet_vid_train", "VID", False),
        ("imagenet_det_30plus1cls", "DET", False),
        ("imagenet_vid_val", "VID", True),
    ):
        dataset = ImageNetVID(
            data_root=str(root),
            ann_file=f"annotations/{name}.json",
            data_prefix=dict(img=f"Data/{kind}"),
            test_mode=test_mode,
            pipeline=[],
        )
        sizes[name] = len(dataset)
        assert Path(dataset.get_data_info(0)["img_path"]).is_file()
        assert dataset.get_data_info(0)["instances"]
    assert sizes == {
        "imagenet_vid_train": 17,
        "imagenet_det_30plus1cls": 1,
        "imagenet_vid_val": 2,
    }


def put_own(root, name, objects, suffix=".jpg", kind="VID") -> None:
    """A frame with objects of one's own classes; boxes as text."""
    put(root, kind, name, objects)
    picture = root / "Data" / kind / f"{name}.JPEG"
    picture.rename(picture.with_suffix(suffix))


def test_classes_of_ones_own(tmp_path, tool):
    for frame in range(2):
        put_own(
            tmp_path,
            f"train/a/{frame:06d}",
            [("ball", 0, (1, 2, 11, 12)), ("leaf", 1, (0, 0, 4, 4))],
        )
    status, printed = tool("-i", tmp_path)
    assert status == 2
    assert "none of its 4 objects is one of the 30 synsets" in printed
    assert "name 'ball', 'leaf': give these with --classes" in printed
    assert not list((tmp_path / "annotations").glob("*.json"))
    status, printed = tool("-i", tmp_path, "--classes", "leaf", "ball")
    assert status == 0, printed
    content = read(tmp_path / "annotations" / "imagenet_vid_train.json")
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "leaf"), (2, "ball")]
    assert [a["category_id"] for a in content["annotations"]] == [2, 1, 2, 1]
    dataset = ImageNetVID(
        data_root=str(tmp_path),
        ann_file="annotations/imagenet_vid_train.json",
        data_prefix=dict(img="Data/VID"),
        metainfo=dict(classes=("leaf", "ball")),
        test_mode=True,
        pipeline=[],
    )
    assert [thing["bbox_label"] for thing in dataset[0]["instances"]] == [1, 0]
    assert Path(dataset[1]["img_path"]).is_file()


def test_objects_left_out_and_classes_without_any_are_said(tmp_path, tool):
    put_own(tmp_path, "train/a/000000", [("ball", 0, (1, 2, 11, 12)), ("crystal", 1, (0, 0, 4, 4))])
    status, printed = tool("-i", tmp_path, "--classes", "ball", "cristal")
    assert status == 0
    assert "left out, of no class: 'crystal' 1" in printed
    assert "without objects: 'cristal'" in printed


def test_boxes_in_decimals(tmp_path, tool):
    put_own(tmp_path, "val/a/000000", [(DOG, 0, ("12.5", "3.0", "20.25", "9"))])
    assert tool("-i", tmp_path)[0] == 0
    (thing,) = read(tmp_path / "annotations" / "imagenet_vid_val.json")["annotations"]
    assert thing["bbox"] == [12.5, 3, 7.75, 6] and thing["area"] == 46.5
    put_own(tmp_path, "val/a/000001", [(DOG, 0, ("nan", 0, 1, 1))])
    status, printed = tool("-i", tmp_path)
    assert status == 2 and "bndbox/xmin is 'nan', which is not a finite number" in printed


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png", ".jpeg"])
@pytest.mark.parametrize(
    "stems",
    [
        ("000001", "000002", "000003"),
        ("1", "3", "5"),
        ("frame_0000", "frame_0005", "frame_0010"),
    ],
)
def test_suffixes_and_numbering_are_taken_as_they_come(tmp_path, tool, suffix, stems):
    for stem in stems:
        put_own(tmp_path, f"val/a/{stem}", [(DOG, 0, (0, 0, 5, 5))], suffix)
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    images = read(tmp_path / "annotations" / "imagenet_vid_val.json")["images"]
    assert [i["file_name"] for i in images] == [f"val/a/{stem}{suffix}" for stem in stems]
    assert [i["frame_id"] for i in images] == [0, 1, 2]


def test_a_list_of_frames_counted_from_1(tmp_path, tool):
    for frame in (1, 2):
        put_own(tmp_path, f"val/a/{frame:06d}", [(DOG, 0, (0, 0, 5, 5))])
    write_list(tmp_path, "VID_val_videos.txt", "val/a 1 0 2")
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    write_list(tmp_path, "val.txt", "a/000001 1", "a/000002 2", folder="ImageSets/VID")
    (tmp_path / "Lists" / "VID_val_videos.txt").unlink()
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    assert len(read(tmp_path / "annotations" / "imagenet_vid_val.json")["images"]) == 2


def test_a_frame_lost_from_both_folders_is_missing(tmp_path, tool):
    for frame in (1, 2, 4, 5):
        put_own(tmp_path, f"val/a/{frame:06d}", [(DOG, 0, (0, 0, 5, 5))])
    status, printed = tool("-i", tmp_path)
    assert status == 2 and "val/a/000003.xml" in printed


def test_boxes_that_do_not_fit_are_said(tmp_path, tool):
    name = TRAIN.format(0)
    for frame, box in enumerate([(1, 2, 11, 22), (5, 5, 200, 60), (-3, 5, 20, 60), (5, 5, 5, 60)]):
        put(tmp_path, "VID", f"{name}/{frame:06d}", [(DOG, 0, box)])
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    assert (
        "warning: 2 boxes end outside of their picture, the first in "
        f"{name}/000001.JPEG, 5, 5, 200, 60 in 160 x 90" in printed
    )
    assert f"warning: 1 boxes have no area, the first in {name}/000003.JPEG" in printed


@pytest.mark.parametrize("track", [None, "", " "])
def test_objects_without_a_track_are_said(tmp_path, tool, track):
    for frame in range(2):
        objects = [(DOG, track, (1, 2, 11, 22)), (CAT, 3, (5, 5, 9, 9))]
        put(tmp_path, "VID", f"{VAL}/{frame:06d}", objects)
    status, printed = tool("-i", tmp_path)
    assert status == 0, printed
    said = f"warning: 2 objects have no trackid, so that none is followed, the first in {VAL}/"
    assert said in printed
    objects = read(tmp_path / "annotations" / "imagenet_vid_val.json")["annotations"]
    assert [thing["instance_id"] for thing in objects] == [1, 2, 3, 2]


def test_a_box_that_ends_before_it_begins_is_broken(tmp_path, tool):
    put(tmp_path, "VID", f"{VAL}/000000", [(DOG, 0, (30, 5, 10, 20))])
    status, printed = tool("-i", tmp_path)
    assert status == 2
    assert (
        "000000.xml (<object>'s bndbox ends before it begins: xmin 30, ymin 5, xmax 10, ymax 20"
        in printed
    )


def test_frames_without_numbers_are_no_video(tmp_path, tool):
    for name in "ab":
        put(tmp_path, "VID", f"{VAL}/{name}", [(DOG, 0, (1, 2, 11, 22))])
    status, printed = tool("-i", tmp_path)
    assert status == 2
    assert f"vid_val: no picture is left of {tmp_path}/Annotations/VID/val" in printed
    assert f"{VAL}/a.xml); names of a video's frames end in their number" in printed
    assert not list(tmp_path.rglob("*.json"))
