"""Classes of VOC data sets, which silently ignore objects with other names."""

from __future__ import annotations

import re
import warnings

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.classes import check_set_classes
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.fit.voc import names
from mmvitaccel.fit.voc.names import object_names
from mmvitaccel.runner.config import load_config

OBJECTS = [["bright", "dark"], ["dark"], []]


@pytest.fixture
def check(detector_config, tmp_path):
    """Write a data set of three pictures, check it with these classes, and return the warnings."""
    folder = tmp_path / "voc" / "VOC2007" / "Annotations"
    folder.mkdir(parents=True)

    def run(*classes: str, objects=OBJECTS, text="a\nb\nc\n", kind="VOCDataset") -> list[str]:
        for name, own in zip("abc", objects):
            inside = "".join(f"<object><name>{each}</name></object>" for each in own)
            (folder / f"{name}.xml").write_text(f"<annotation>{inside}</annotation>")
        (tmp_path / "voc" / "train.txt").write_text(text)
        cfg = load_config(str(detector_config), {})
        dataset = cfg.train_dataloader.dataset
        dataset.update(type=kind, data_root=str(tmp_path / "voc"), ann_file="train.txt")
        dataset.data_prefix = dict(sub_data_root="VOC2007/")
        dataset.metainfo = dict(classes=classes)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_set_classes(data_sets(cfg, "train"))
        return [str(warning.message) for warning in caught]

    return run


def test_classes_that_no_object_has(check):
    sentence = (
        r"^train_dataloader\.dataset\.metainfo\.classes has 'Bright', 'Dark', of which the 3 files "
        r"below .*Annotations have no object \(their names are 'dark', 'bright'\), so all "
        r"would be ignored; use the names in the files; did you mean 'bright'\?$"
    )
    with pytest.raises(UserError, match=sentence):
        check("Bright", "Dark")


def test_a_class_that_may_be_misspelt(check):
    (said,) = check("brihgt", "dark")
    assert re.search(r"classes has 'brihgt', of which the 3 files .* have no object, and objects "
                     r"named 'bright' are ignored; .*did you mean 'bright'\?$", said)  # fmt: skip


@pytest.mark.parametrize("classes", [("bright", "dark"), ("dark",), ("dark", "bright", "rare")])
def test_what_fits_is_silent(check, classes):
    assert check(*classes) == []


def test_a_set_without_objects(check):
    (said,) = check("bright", objects=[[], [], []])
    assert said.startswith("the 3 files below ") and "sees none" in said


def test_other_data_sets_are_left_alone(check):
    assert check("Bright", kind="WIDERFaceDataset") == []


@pytest.mark.parametrize("text", ["a\n\nb\n", "a\nb\n\n", ""])
def test_a_line_without_a_name(check, text):
    with pytest.raises(UserError, match=r"train\.txt, line \d is empty, .*remove the line"):
        check("bright", text=text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbfa\nb\n", "begins with a byte order mark"),
        ("a\nb\n".encode("utf-16"), "is text in UTF-16"),
        (b"a\rb\r", r"has a carriage return \(CR\)"),
        (b"a\nb\xe9\n", "is not UTF-8 text: byte 3 is 0xe9, in line 2"),
    ],
)
def test_a_list_that_mmdet_would_misread(tmp_path, content, said):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"train\.txt {said}"):
        object_names(str(path), str(tmp_path))


@pytest.mark.parametrize("size", [("0", "0"), ("9", "0"), ("-1", "9"), ("9", ""), ("nine", "9")])
def test_a_picture_without_a_pixel(tmp_path, size):
    (tmp_path / "train.txt").write_bytes(b"a\r\n")
    xml = "<annotation><size><width>{}</width><height>{}</height></size></annotation>"
    (tmp_path / "a.xml").write_text(xml.format(*size))
    shown = " x ".join(side or "nothing" for side in size)
    with pytest.raises(UserError, match=rf"a\.xml says that its picture is {shown} pixels"):
        object_names(str(tmp_path / "train.txt"), str(tmp_path))
    (tmp_path / "a.xml").write_text(xml.format(9, 1))
    assert object_names(str(tmp_path / "train.txt"), str(tmp_path)) == ({}, 1)


def test_an_xml_in_an_encoding_that_is_not_known(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "a.xml").write_bytes(b"<?xml version='1.0' encoding='no-such'?><annotation/>")
    with pytest.raises(UserError, match=r"a\.xml is not a valid XML file \(unknown encoding"):
        object_names(str(tmp_path / "train.txt"), str(tmp_path))


def test_files_that_are_not_there_or_no_xml(check, tmp_path):
    with pytest.raises(UserError, match=r"train\.txt, line 2: .*d\.xml does not exist; put it"):
        check("bright", text="a\nd\n")
    (tmp_path / "voc" / "VOC2007" / "Annotations" / "e.xml").write_text("<annotation><object>")
    with pytest.raises(UserError, match=r"e\.xml is not a valid XML file \(no element found"):
        check("bright", text="a\ne\n")


def test_line_ends_of_other_systems(check):
    assert check("bright", "dark", text="a\r\nb\r\nc\r\n") == []


def test_of_very_many_some_are_looked_at(check, tmp_path, monkeypatch):
    check("bright")
    path = tmp_path / "voc" / "many.txt"
    path.write_text("a\n" * 9 + "b\n")
    monkeypatch.setattr(names, "_MAX_FILES", 4)
    found, files = object_names(str(path), str(tmp_path / "voc" / "VOC2007" / "Annotations"))
    assert files == 4
    assert found == {"bright": 3, "dark": 4}


def test_a_training_is_refused_before_the_first_step(run_tool, detector_config, check, capsys):
    check("bright")
    with detector_config.open("a") as file:
        file.write(
            "train_dataloader['dataset'].update(type='VOCDataset', data_root='voc', ann_file="
            "'train.txt', data_prefix=dict(sub_data_root='VOC2007/'), "
            "metainfo=dict(classes=('Light', 'Heavy')))\n"
        )
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config)
    assert caught.value.code == 2
    assert "their names are 'dark', 'bright'" in capsys.readouterr().err.splitlines()[-1]
