"""Text in any script that a font is there for."""

from __future__ import annotations

import numpy as np

from mmvitaccel.pictures.text import families, legible, put_text


def ink(words, **options):
    blank = np.zeros((24, 240, 3), np.uint8)
    return put_text(blank, words, (2, 2), 14, (255, 255, 255), **options)


def test_accents_and_greek_are_drawn_as_they_are(fonts):
    fonts()
    for name, plain in (("caf\u00e9", "cafe"), ("\u0141\u00f3d\u017a", "Lodz")):
        assert legible(name, 3) == name
        assert not np.array_equal(ink(name), ink(plain))
        assert not np.array_equal(ink(name), ink("????"))
    assert not np.array_equal(ink("\u03b1"), ink("\u03b2"))


def test_a_font_with_the_character_is_found(fonts, cat_font):
    fonts(cat_font)
    assert legible("\u732b", 3) == "\u732b"
    drawn = ink("\u732b")
    assert drawn[..., 0].sum() > 255 * 80  # the square, not the outline of a missing character
    assert families("a \u732b") == ["DejaVu Sans", "Cats"]


def test_without_a_font_the_number_is_beside(fonts):
    fonts()
    assert legible("\u732b", 3) == "[3] \u732b"
    assert legible("cat", 3) == "cat"
    assert families("\u732b") == ["DejaVu Sans"]


def test_what_is_drawn_and_what_is_left():
    blank = np.full((24, 240, 3), 9, np.uint8)
    drawn = put_text(blank, "error 1.5 %", (6, 4), 15, (10, 20, 250), outline=(0, 0, 0))
    assert (blank == 9).all()
    assert (drawn[..., 2] > 200).any() and (drawn == 0).any()
    assert (drawn[:, 120:] == 9).all()
