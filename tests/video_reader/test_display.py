"""Display matrices: their effect on an image, and reading them from an MP4."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mmvitaccel.video_reader.display import AS_STORED, of_angle, of_matrix, read_display

ONE = 1 << 16
IDENTITY = (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
MIRROR = (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
CLOCKWISE = (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("matrix", [
    (a, b, 0, c, d, 0, 0, 0, 1) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)
    for d in (-1, 0, 1) if abs(a * d - b * c) == 1 and abs(a) + abs(b) == 1 == abs(c) + abs(d)
])  # fmt: skip
def test_each_pixel_is_shown_where_the_matrix_says(matrix):
    image = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    shown = of_matrix(matrix).upright(image)
    a, b, _, c, d = matrix[:5]
    places = {(x, y): (a * x + c * y, b * x + d * y) for x in range(3) for y in range(2)}
    left, top = (min(place[i] for place in places.values()) for i in (0, 1))
    for (x, y), (across, down) in places.items():
        assert shown[down - top, across - left].tolist() == image[y, x].tolist()


def test_angles_are_counterclockwise():
    image = np.arange(6).reshape(2, 3, 1)
    for turns in range(-4, 5):
        shown = of_angle(90 * turns).upright(image)
        assert np.array_equal(shown, np.rot90(image, turns)), turns


def test_a_matrix_that_is_no_quarter_turn_is_none():
    assert of_matrix((ONE, ONE, 0, -ONE, ONE, 0, 0, 0, 1)) is None
    assert of_matrix((0,) * 9) is None


def box(name, *content):
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), name) + data


def header(version, before, matrix):
    return bytes([version]) + bytes(before - 1) + struct.pack(">9i", *matrix)


def track(kind, matrix, version=0):
    handler = box(b"hdlr", bytes(8), kind, bytes(12))
    head = box(b"tkhd", header(version, 52 if version else 40, matrix))
    return box(b"trak", head, box(b"mdia", handler))


def movie(*tracks, whole=IDENTITY, version=0):
    head = box(b"mvhd", header(version, 48 if version else 36, whole))
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + bytes(5)
    return box(b"ftyp", b"isom") + large + box(b"moov", head, *tracks)


@pytest.mark.parametrize("version", [0, 1])
def test_the_matrix_of_the_first_video_track(tmp_path, version):
    path = tmp_path / "a.mp4"
    tracks = [track(b"soun", CLOCKWISE, version), track(b"vide", MIRROR, version)]
    path.write_bytes(movie(*tracks, track(b"vide", CLOCKWISE), version=version))
    assert read_display(path) == (-1, 0, 0, 1)
    path.write_bytes(movie(track(b"vide", MIRROR, version), whole=MIRROR, version=version))
    assert read_display(path) == AS_STORED
    path.write_bytes(movie(track(b"vide", MIRROR, version), whole=CLOCKWISE, version=version))
    # mirrored first, then turned: (x, y) to (-x, y) to (-y, -x)
    assert read_display(path) == (0, -1, -1, 0)


def test_what_is_no_mp4_has_none(tmp_path):
    path = tmp_path / "a.mp4"
    whole = movie(track(b"vide", MIRROR))
    for data in (b"", b"RIFF....AVI ", movie(), *(whole[:n] for n in range(0, len(whole), 7))):
        path.write_bytes(data)
        assert read_display(path) is None
    assert read_display(tmp_path / "none.mp4") is None
