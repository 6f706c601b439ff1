"""Checks of lists of videos, frame folders and pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.heads import Head
from mmvitaccel.fit.lists import check_list
from mmvitaccel.runner.config import load_config

HEAD = Head("model.cls_head.num_classes", 2)


@pytest.fixture
def videos(recognizer_config, tmp_path):
    """Check a list of VideoDataset with these lines."""

    def check(*lines: str, split: str = "train", head: Head = HEAD, **options) -> None:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        for name in ("a.mp4", "b.mp4", "clip (1).mp4"):
            (folder / name).touch()
        (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
        cfg = load_config(str(recognizer_config), {})
        cfg[f"{split}_dataloader"].dataset = dict(
            type="VideoDataset",
            ann_file=str(folder / "list.txt"),
            data_prefix=dict(video=str(folder)),
            **options,
        )
        (data,) = data_sets(cfg, split)
        check_list(data, head, labels_needed=split != "test")

    return check


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("a.mp4 1", "b.mp4 2"), r"list\.txt, line 2: 'b\.mp4 2' has the label 2, but "
                                 r"model\.cls_head\.num_classes is 2, so labels are 0 to 1; "
                                 r"labels count from 0, subtract 1"),
        (("a.mp4 0", "b.mp4 7"), r"line 2: .* has the label 7.*set model\.cls_head\.num_classes=8"),
        (("a.mp4 0", "b.mp4 -2"), r"line 2: .* has the label -2"),
        (("a.mp4 0", "clip (1).mp4 1"), r"line 2: 'clip \(1\)\.mp4 1' has 3 fields, but a name"
                                        r".*delimiter"),
        (("a.mp4 0", "", "b.mp4 1"), r"line 2: '' names no video"),
        (("a.mp4 0", "b.mp4 one"), r"line 2: 'b\.mp4 one' has 'one' where a whole number"),
        (("a.mp4 0", "b.mp4 1.0"), r"line 2: .*has '1\.0' where a whole number"),
        (("a.mp4 0", "c.mp4 1"), r"line 2: .*c\.mp4 does not exist"),
        (("\ufeffa.mp4 0", "b.mp4 1"), r"list\.txt begins with a byte order mark"),
        (("a.mp4 0\rb.mp4 1",), r"list\.txt has a carriage return \(CR\) .* in line 1"),
        (("a.mp4 0", "b.mp4 1", "", ""), r"line 3: '' names no video; remove the line"),
        (("a.mp4\t0", "b.mp4\t1"), r"line 1: .* with the delimiter ' ', .*; set the data set's "
                                   r"delimiter to '\\t'"),
        (("a.mp4  0", "b.mp4 1"), r"line 1: .* has the delimiter ' ' twice in a row"),
        (("a.mp4,0",), r"line 1: 'a\.mp4,0' has one field .* delimiter to ','"),
        ((), r"list\.txt has no lines"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be(videos, split, lines, sentence):
    with pytest.raises(UserError, match=sentence):
        videos(*lines, split=split)


def test_line_ends_of_other_systems(videos):
    videos("a.mp4 0\r", "b.mp4 1  ", "a.mp4 1\x0c")


def test_names_with_spaces_and_a_delimiter(videos):
    videos("a.mp4,0", "clip (1).mp4,1", delimiter=",")
    with pytest.raises(UserError, match=r"line 1: 'a\.mp4,0,1' has 3 fields"):
        videos("a.mp4,0,1", delimiter=",")


def test_lines_without_labels_are_for_tests(videos):
    with pytest.raises(UserError, match=r"line 2: 'b\.mp4' has no label; add one from 0 to 1"):
        videos("a.mp4 0", "b.mp4")
    videos("a.mp4", "b.mp4", split="test")


def test_several_labels(videos):
    videos("a.mp4 0 1", "b.mp4 1", multi_class=True, num_classes=2)
    with pytest.raises(UserError, match=r"line 1: 'a\.mp4 0 5' has the label 5"):
        videos("a.mp4 0 5", multi_class=True, num_classes=2)
    with pytest.raises(
        UserError, match=r"num_classes is 2, but .*, the length of its labels, is 5"
    ):
        videos("a.mp4 0 1", multi_class=True, num_classes=5)


def test_what_may_be_meant_is_a_warning(videos):
    with pytest.warns(UserWarning, match=r"num_classes is 400, but the labels .* end at 1; set"):
        videos("a.mp4 0", "b.mp4 1", head=Head("model.cls_head.num_classes", 400))
    with pytest.warns(UserWarning, match=r"begin at 1, but labels count from 0"):
        videos("a.mp4 1", "b.mp4 2", head=Head("model.cls_head.num_classes", 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        videos("a.mp4 0", "b.mp4 1")
        videos("a.mp4 0", split="val", head=Head("model.cls_head.num_classes", 400))


@pytest.mark.parametrize(
    ("line", "options", "sentence"),
    [
        ("clip0 6 2", {}, r"line 5: .* has the label 2"),
        ("clip 0 6 1", {}, r"line 5: 'clip 0 6 1' has 4 fields, .* rename"),
        ("clip0", {}, r"line 5: 'clip0' has 1 fields"),
        ("clip0 0 1", {}, r"line 5: .* has 0 frames"),
        ("", {}, r"line 5: '' names no folder or file; remove the line"),
        ("clip9 6 1", {}, r"line 5: .*clip9 does not exist"),
        ("clip0 6 1", {}, None),
    ],
)
def test_frame_folders(recognizer_config, tmp_path, line, options, sentence):
    path = tmp_path / "clips" / "clips.txt"
    path.write_text(path.read_text() + line + "\n")
    (data,) = data_sets(load_config(str(recognizer_config), options), "train")
    if sentence is None:
        check_list(data, HEAD, True)
        return
    with pytest.raises(UserError, match=sentence):
        check_list(data, HEAD, True)


def test_frame_folders_with_an_offset(recognizer_config, tmp_path):
    path = tmp_path / "clips" / "clips.txt"
    cfg = load_config(str(recognizer_config), {})
    cfg.train_dataloader.dataset.with_offset = True
    path.write_text("clip0 1 5 1\n")
    check_list(*data_sets(cfg, "train"), HEAD, True)
    path.write_text("clip0 5\n")
    with pytest.raises(UserError, match=r"a name, an offset, a number of frames and a label"):
        check_list(*data_sets(cfg, "train"), HEAD, True)


def test_pictures_with_labels(recognizer_config, tmp_path):
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    (tmp_path / "a b.png").touch()
    path = tmp_path / "list.txt"
    cfg = load_config(str(recognizer_config), {})
    cfg.train_dataloader.dataset = dict(
        type="mmpretrain.CustomDataset", data_root=str(tmp_path), ann_file="list.txt"
    )
    path.write_text("a b.png 1\n")
    check_list(*data_sets(cfg, "train"), HEAD, True)
    path.write_text("a b.png 0\na b.png 2\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2: 'a b\.png 2' has the label 2"):
        check_list(*data_sets(cfg, "train"), HEAD, True)


PERSON = "clip0,1,0.1,0.1,0.8,0.9,1,0"


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        ([PERSON, PERSON], {}, None),
        (["clip0,1,0.1,0.1,0.8,0.9,7,0"], dict(custom_classes=[7, 3, 2, 1]), None),
        (["clip0,1,0.1,0.1,0.8,0.9,8,0"], dict(custom_classes=[7, 3, 2, 1]), None),
        (["video,t,x1,y1,x2,y2,action,person"], {}, r"line 1: .* has 't' where a whole number"),
        ([PERSON, "clip0,1,a,0.1,0.8,0.9,1,0"], {}, r"line 2: .* has 'a' where a number"),
        ([PERSON, "clip0,1,0.1"], {}, r"line 2: .* has 3 fields, but 8 are expected: video, time"),
        ([PERSON, "clip0,1,3,3,30,35,1,0"], {}, r"line 2: .* has the box 3, 3, 30, 35, but .* rel"),
        ([PERSON, "clip0,1,0.1,0.1,0.8,0.9,9,0"], {}, r"line 2: .* has the action 9, but "
         r"train_dataloader\.dataset\.num_classes is 5, so actions are 1 to 4"),
        ([PERSON], dict(num_classes=81), r"bbox_head\.num_classes is 5, but train_dataloader\."
                                         r"dataset\.num_classes is 81; set both to the"),
        ([PERSON.replace("clip0", "clip9")], {}, r"line 1: .*clip9 does not exist"),
    ],
)  # fmt: skip
def test_actions_of_persons(recognizer_config, tmp_path, lines, options, sentence):
    path = tmp_path / "ava.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    cfg = load_config(str(recognizer_config), {})
    cfg.train_dataloader.dataset = dict(
        type="AVADataset",
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path / "clips")),
        **dict(dict(num_classes=5), **options),
    )
    (data,) = data_sets(cfg, "train")
    head = Head("model.roi_head.bbox_head.num_classes", 5)
    if sentence is None:
        check_list(data, head, True)
        return
    with pytest.raises(UserError, match=sentence):
        check_list(data, head, True)


@pytest.mark.parametrize("tool", ["train", "test"])
def test_the_tools_refuse_before_the_first_step(
    run_tool, recognizer_config, tmp_path, capsys, tool
):
    path = tmp_path / "clips" / "clips.txt"
    path.write_text(path.read_text().replace(" 1\n", " 2\n"))
    arguments = [tmp_path / "none.pth"] if tool == "test" else []
    with pytest.raises(SystemExit) as caught:
        run_tool(tool, recognizer_config, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "clips.txt, line 2: 'clip1 6 2' has the label 2" in error
    assert not Path(tmp_path, "work_dirs").exists()


def test_one_file_with_two_labels(videos):
    with pytest.warns(
        UserWarning, match=r"list\.txt: a\.mp4 has the label 0 in line 1 and 1 in line"
    ):
        videos("a.mp4 0", "b.mp4 1", "a.mp4 1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        videos("a.mp4 0", "b.mp4 1", "a.mp4 0")
        videos("a.mp4 0", "a.mp4 1", multi_class=True, num_classes=2)
