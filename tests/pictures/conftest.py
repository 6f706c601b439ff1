"""Machines with chosen fonts."""

from __future__ import annotations

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from mmvitaccel.pictures import text


@pytest.fixture
def fonts(monkeypatch):
    """Lets the machine have the given fonts beside the default one."""

    def have(*paths):
        for cached in (text._font_of, text._paths):
            cached.cache_clear()
        monkeypatch.setattr(text, "_paths", lambda: (text._default(), *map(str, paths)))

    yield have
    text._font_of.cache_clear()


@pytest.fixture
def cat_font(tmp_path):
    """A font whose only character, U+732B (cat), is a full square."""
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 800), (800, 800), (800, 0)):
        (pen.lineTo if place != (0, 0) else pen.moveTo)(place)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({0x732B: "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(tmp_path / "cats.ttf")
    return tmp_path / "cats.ttf"
