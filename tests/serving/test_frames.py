"""What comes as a frame: read, or refused before it costs anything."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from mmvitaccel.serving import FrameLimits, Refused
from mmvitaccel.serving.frames import check_picture, picture_of, read_picture
from tests.serving.conftest import bomb, encoded

LIMITS = FrameLimits(megabytes=0.1, megapixels=0.01)


def test_files_are_read_as_they_are(picture):
    assert np.array_equal(read_picture(encoded(picture), LIMITS), picture)
    jpeg = read_picture(encoded(picture, "JPEG"), LIMITS)
    assert jpeg.shape == picture.shape and jpeg.dtype == np.uint8
    grey = read_picture(encoded(picture[..., 0]), LIMITS)
    assert np.array_equal(grey, picture[..., :1].repeat(3, 2))


def test_grey_of_16_bits_keeps_its_upper_ones():
    grey = np.arange(0, 2**16, 64, dtype=np.uint16).reshape(32, 32)
    found = read_picture(encoded(grey), LIMITS)
    assert found.dtype == np.uint8
    assert np.array_equal(found, (grey // 256)[..., None].repeat(3, 2))


def test_a_picture_is_turned_upright(picture, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=turned)
    found = read_picture((tmp_path / "a.png").read_bytes(), LIMITS)
    assert np.array_equal(found, np.rot90(picture, -1))


@pytest.mark.parametrize("size", [(101, 100), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch, size):
    def load(self):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(Refused, match=r"0\.01 megapixels") as refused:
        read_picture(bomb(*size), LIMITS)
    assert refused.value.reason == "large"


def test_too_many_bytes_are_not_decoded():
    with pytest.raises(
        Refused, match="the frame has 100001 bytes, above the limit of 100000"
    ) as refused:
        read_picture(b"x" * 100_001, LIMITS)
    assert refused.value.reason == "large"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "0 bytes are not a picture"),
        (b"<html>", "6 bytes are not a picture: they begin with b'<html>'; send JPEG or PNG"),
        (b"GIF89a" + bytes(50), "are not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "are not a picture|is damaged"),
    ],
)
def test_bytes_that_are_not_a_picture_are_named(content, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        read_picture(content, LIMITS)
    assert refused.value.reason == "frame"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_that_is_cut_short_is_refused(picture, kind):
    content = encoded(picture, kind)
    for length in (len(content) // 3, len(content) // 2, len(content) - 40):
        with pytest.raises(Refused, match=r"is damaged|not a picture") as refused:
            read_picture(content[:length], LIMITS)
        assert refused.value.reason == "frame"


def test_mutated_files_are_read_or_refused(picture):
    rng = np.random.default_rng(0)
    read = 0
    for kind in ("PNG", "JPEG"):
        whole = np.frombuffer(encoded(picture, kind), np.uint8)
        for _ in range(150):
            content = whole.copy()
            places = rng.integers(0, len(content), 3)
            content[places] = rng.integers(0, 256, 3)
            try:
                assert read_picture(content.tobytes(), LIMITS).shape[2] == 3
                read += 1
            except Refused as refused:
                assert refused.reason in ("frame", "large")
    assert 0 < read < 300


def test_raw_pixels(picture):
    assert np.array_equal(picture_of(picture.tobytes(), 48, 32, LIMITS), picture)
    for width, height, sentence in (
        (48, 31, "48 x 31 pixels has 4464 bytes, not 4608"),
        (0, 32, "0 x 32 pixels"),
        (-48, -32, "-48 x -32 pixels"),
        (1000, 1000, r"1000 x 1000 pixels, above the limit of 0\.01 megapixels"),
    ):
        with pytest.raises(Refused, match=sentence):
            picture_of(picture.tobytes(), width, height, LIMITS)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_an_array_of_another_shape_is_refused(wrong):
    with pytest.raises(Refused, match=r"give \(height, width, 3\) uint8"):
        check_picture(wrong, LIMITS)


def test_an_array_is_limited_too(picture):
    assert check_picture(picture, LIMITS) is picture
    for shape in ((0, 4, 3), (101, 100, 3)):
        with pytest.raises(Refused, match="pixels"):
            check_picture(np.zeros(shape, np.uint8), LIMITS)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers(value):
    for name in ("megabytes", "megapixels"):
        with pytest.raises(ValueError, match=f"FrameLimits: {name}={value!r} must be a number"):
            FrameLimits(**{name: value})


def test_a_refusal_goes_from_process_to_process():
    refused = pickle.loads(pickle.dumps(Refused("order", "frame 3 came after frame 4.")))
    assert (refused.reason, str(refused)) == ("order", "frame 3 came after frame 4.")
