"""Reading of a json record by record."""

from __future__ import annotations

import json

import pytest

from mmvitaccel.fit.coco import coco_json
from mmvitaccel.fit.coco.coco_json import category_ids, each_record, read_list

RECORDS = [{"id": n, "name": "Ä" * n, "bbox": [1, 2.5, 3, 4], "in": {"a": [n]}} for n in range(40)]


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("layout", [{}, dict(indent=2), dict(ensure_ascii=False)])
def test_records_come_whole_whatever_the_pieces(tmp_path, monkeypatch, piece, layout):
    monkeypatch.setattr(coco_json, "_FIRST_PIECE", piece)
    content = {"info": {"year": 1}, "annotations": RECORDS, "images": [{"id": 7}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, **layout), encoding="utf-8")
    assert list(each_record(str(path), "annotations")) == RECORDS
    assert list(each_record(str(path), "images")) == [{"id": 7}]
    assert list(each_record(str(path), "videos")) == []


@pytest.mark.parametrize("text", ["", "{}", '{"annotations": [', '{"annotations": null}'])
def test_no_list_has_no_records(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert list(each_record(str(path), "annotations")) == []


def test_what_is_cut_short_gives_what_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [{"id": 1}, {"id": 2}, {"id"')
    assert list(each_record(str(path), "annotations")) == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_list_is_read_whole_whatever_the_pieces(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(coco_json, "_FIRST_PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"info": {"images": 3}, "images": RECORDS, "annotations": []}))
    assert read_list(str(path), "images") == RECORDS
    assert read_list(str(path), "annotations") == []
    assert read_list(str(path), "categories") is None


@pytest.mark.parametrize("text", ["", "{}", '{"images": [{"id": 1}, 2]}', '{"images": [{"id": 1}'])
def test_a_list_of_anything_else_than_records_is_none(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_list(str(path), "images") is None


def test_category_ids_are_numbers_and_texts(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"annotations": [{"category_id": 3}, {"category_id" : "a \\" b"}, {"category_id":3},'
        ' {"category_id": [7]}, {"category_id": null}]}'
    )
    assert category_ids(str(path)) == {3, 'a " b'}
    path.write_text("")
    assert category_ids(str(path)) == set()
