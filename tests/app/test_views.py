"""What the page shows, as HTML."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from mmvitaccel.app import views
from mmvitaccel.budget.target import Target


def rows(*macs):
    return [
        dict(frame=number, macs=value, dense_macs=4e9, milliseconds=None, dense_milliseconds=8.0)
        for number, value in enumerate(macs, start=3)
    ]


def lines(drawing):
    """The points of each curve, and all words."""
    found = ElementTree.fromstring(drawing)
    points = [
        [tuple(map(float, place.split(","))) for place in line.get("points").split()]
        for line in found.iter("polyline")
    ]
    return points, [text.text for text in found.iter("text")]


def test_curves_lie_where_their_values_are():
    (dense, eventful), words = lines(views.curves(rows(4e9, 2e9, 1e9), "macs", "G", 1e9))
    assert [x for x, _ in dense] == [x for x, _ in eventful] == [44.0, 262.0, 480.0]
    assert {y for _, y in dense} == {22.0}
    assert [y for _, y in eventful] == [22.0, 100.0, 139.0]
    assert {"G", "dense", "eventful", "frame 3", "5", "0", "2", "4"} <= set(words)


def test_curves_leave_out_what_is_not_known_and_long_ago(monkeypatch):
    (dense, eventful), _ = lines(views.curves(rows(4e9, 2e9), "milliseconds", "ms"))
    assert len(dense) == 2 and eventful == []
    assert lines(views.curves([], "macs", "G"))[0] == [[], []]
    monkeypatch.setattr(views, "_SHOWN", 2)
    assert len(lines(views.curves(rows(4e9, 3e9, 2e9), "macs", "G"))[0][0]) == 2


def test_costs_and_sentences():
    frame = SimpleNamespace(
        number=7,
        k=12,
        milliseconds=None,
        macs=2e9,
        dense_milliseconds=80.25,
        dense_macs=4e9,
        target=Target("share", 0.5),
        whole=False,
        missed=True,
    )
    shown = re.sub("<[^>]+>", "|", views.costs(frame))
    for part in ("80.2", "|4.00|", "|-|", "|2.00|", "|50%|", "frame 7, k 12, budget 50%"):
        assert part in shown
    assert "the budget cannot be held" in shown
    assert "&lt;b&gt;" in views.notice("<b>", wrong=True) and "mistake" in views.notice("", True)


@pytest.mark.parametrize(("width", "shown"), [(100, 100), (2000, 1280)])
def test_a_picture_is_whole_in_the_page(width, shown):
    image = np.zeros((50, width, 3), np.uint8)
    image[..., 0] = 200
    (data,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", views.picture(image))
    back = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert back.shape[1] == shown
    assert back[0, 0, 2] > 190 > 10 > back[0, 0, 0]
