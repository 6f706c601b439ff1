"""Some hundreds of mutated inputs: the small form of the endurance run; and inputs that failed."""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path

import pytest

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.datasets.cocovid import read_cocovid
from mmvitaccel.datasets.ilsvrc.layout import read_list as read_release_list
from mmvitaccel.datasets.ilsvrc.records import read_annotation
from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.testing.fuzz.trial import MARKER, run


@pytest.mark.parametrize(
    ("name", "count"),
    [("checkpoints", 60), ("json", 60), ("xml", 100), ("videos", 60), ("options", 60)],
)
def test_mutated_inputs_are_read_or_refused_in_a_sentence(load_script, tmp_path, name, count):
    kind = load_script("fuzz").KINDS[name](tmp_path)
    outcome = run(kind, tmp_path, 0, range(count))
    assert outcome.faults == []
    assert outcome.read + outcome.refused == count


@pytest.mark.parametrize("name", ["checkpoints", "json", "xml", "videos", "options"])
def test_the_same_seed_gives_the_same_input(load_script, tmp_path, name):
    kind = load_script("fuzz").KINDS[name](tmp_path)

    def made(seed: int) -> object:
        given = kind.make(random.Random(seed))
        return given.read_bytes() if isinstance(given, Path) else given

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_what_is_mutated_is_right_before(load_script, tmp_path):
    kinds = load_script("fuzz").KINDS
    checkpoint, boxes = tmp_path / "a.pth", tmp_path / "whole.json"
    checkpoints, files = kinds["checkpoints"](tmp_path), kinds["json"](tmp_path)
    checkpoint.write_bytes(checkpoints.whole[0])
    assert check_checkpoint(checkpoints.model, str(checkpoint))["epoch"] == 1
    boxes.write_bytes(files.whole)
    files.read(boxes)
    videos = kinds["videos"](tmp_path)
    assert len(videos.whole) >= 3
    for path in videos.whole:
        videos.read(path)


def test_payloads_ask_for_names_that_are_refused(load_script, tmp_path):
    kind = load_script("fuzz").KINDS["checkpoints"](tmp_path)
    path = tmp_path / "a.pth"
    for data in kind.payloads:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.pth: refused, because the file asks for"):
            safe_load(path)
    assert not (tmp_path / MARKER).exists()


class _Kind:
    """Whatever a function does."""

    def __init__(self, read):
        self.make, self.read = lambda rng: rng.random(), read


def _refuse(given):
    raise UserError("this is no input; give another.")


def test_a_traceback_a_hang_and_code_that_ran_are_faults(tmp_path):
    def traceback(given):
        raise KeyError("id")

    def hang(given):
        while True:
            pass

    def run_code(given):
        (tmp_path / MARKER).touch()

    for read, said in ((traceback, "KeyError: id"), (hang, "Hang"), (run_code, "code in the")):
        outcome = run(_Kind(read), tmp_path, 0, range(1), seconds=0.2)
        assert said in outcome.faults[0].what
    assert run(_Kind(_refuse), tmp_path, 0, range(2)).refused == 2


_WORKER = """
import os
from mmvitaccel.testing.fuzz.trial import Outcome

def work(name, seed, indices, answers):
    if name == "no start":
        os._exit(7)
    for index in indices:
        answers.send(index)
        if (name, index) in {("killed", 3), ("quiet", 3)}:
            os._exit(9 if name == "killed" else 0)
        answers.send(Outcome(read=index % 2, refused=1 - index % 2))
    os._exit(11 if name == "last" else 0)
"""


@pytest.mark.parametrize(
    ("name", "read", "refused", "untried", "faults"),
    [
        ("killed", 2, 3, 0, [(3, "the process ended with 9 in this input")]),
        ("quiet", 2, 3, 0, [(3, "the process ended with 0 in this input")]),
        ("last", 3, 3, 0, [(5, "the process ended with 11 after this input")]),
        ("no start", 0, 0, 6, [(0, "the process ended with 7 before its first input")]),
        ("well", 3, 3, 0, []),
    ],
)
def test_a_process_that_dies_takes_no_count_with_it(
    load_script, tmp_path, monkeypatch, name, read, refused, untried, faults
):
    (tmp_path / "dying_worker.py").write_text(_WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("dying_worker").work
    outcome = load_script("fuzz").fuzz(name, 0, range(6), work)
    monkeypatch.delitem(sys.modules, "dying_worker")
    assert (outcome.read, outcome.refused, outcome.untried) == (read, refused, untried)
    assert [(fault.index, fault.what) for fault in outcome.faults] == faults


@pytest.mark.parametrize("encoding", ["none", "rot13", "zip", "shift_jis"])
def test_xml_of_an_encoding_that_is_none(tmp_path, encoding):
    path = tmp_path / "a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(ValueError, match="not readable as xml"):
        read_annotation(path)


def test_list_that_is_no_text(tmp_path):
    path = tmp_path / "val.txt"
    path.write_bytes(b"v0/000000 1\n\xff")
    with pytest.raises(ValueError, match=r"val\.txt is not UTF-8 text: byte 12 is 0xff"):
        read_release_list(path)


@pytest.mark.parametrize("text", ['{"images": [{}, 5]}', '{"images": ' + "[" * 100_000])
def test_list_of_anything_else_than_records_is_none(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_list(str(path), "images") is None


@pytest.mark.parametrize(
    ("key", "record", "said"),
    [
        ("images", 5, r"images\[0\] of .* is 5 and no record"),
        ("images", dict(id=[1]), r"images\[0\] of .* has \[1\] as 'id'"),
        ("categories", dict(id=1, name=None), r"categories\[0\] of .* has None as 'name'"),
        ("annotations", dict(image_id=1, category_id={}), r"has \{\} as 'category_id'"),
        (
            "annotations",
            dict(image_id=1, category_id=1, area=1, bbox=[1, 2, 3]),
            r"annotations\[0\] of .* has \[1, 2, 3\] as 'bbox'",
        ),
    ],
)
def test_cocovid_record_that_is_none(tmp_path, key, record, said):
    image = dict(id=1, file_name="a", height=1, width=1, video_id=1, frame_id=0)
    content = dict(images=[image], categories=[dict(id=1, name="a")], annotations=[])
    content[key] = [record]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        read_cocovid(str(path))


def test_cocovid_that_is_nested_without_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json is not json or was cut short"):
        read_cocovid(str(path))
