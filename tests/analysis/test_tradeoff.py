from __future__ import annotations

import json

import pytest

from mmvitaccel.analysis.tradeoff import METHODS, Point, eventful, save, table


def points() -> list[Point]:
    measured = [Point("dense", None, 82.93, 467.44, 500.0, 1.0)]
    for method in METHODS:
        measured += [Point(method, k, 80 - k / 100, k / 2.0, k, 467.44 * 2 / k) for k in (512, 256)]
    return measured


def test_table_has_a_row_for_each_point():
    lines = table(points()).splitlines()
    assert len(lines) == 2 + 1 + 2 * len(METHODS)
    assert lines[2] == "| dense | - | 82.93 | 467.4400 | 500.0000 | 1.00x |"
    assert lines[3].startswith("| token-wise | 512 | 74.88 | 256.0000 |")


def test_files_hold_what_was_measured(tmp_path):
    files = save(points(), tmp_path / "new")
    assert [file.name for file in files] == ["tradeoff.json", "tradeoff.md", "tradeoff.png"]
    stored = json.loads(files[0].read_text())
    assert [Point(**values) for values in stored] == points()
    assert files[1].read_text() == table(points()) + "\n"
    assert files[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", list(METHODS))
def test_the_dense_config_stays_as_it_is(method):
    from mmengine.config import Config

    cfg = Config(dict(model=dict(backbone=dict(type="mmvitaccel.ViTDet", depth=2))))
    made = eventful(cfg, method, 64)
    assert cfg.model.backbone == dict(type="mmvitaccel.ViTDet", depth=2)
    assert made.model.backbone.backbone == cfg.model.backbone
    assert made.model.backbone.policy == dict(type="TopK", k=64)
    assert made.model.backbone.attention == METHODS[method]["attention"]
