"""Boxes of an MP4, written by hand."""

from __future__ import annotations

import io
import struct

import pytest

from mmvitaccel.video_reader.signature import mp4_boxes


def box(name, content=b""):
    return struct.pack(">I4s", 8 + len(content), name) + content


def long_box(name, content=b""):
    return struct.pack(">I4sQ", 1, name, 16 + len(content)) + content


def contents(data, start=0, stop=None):
    stop = len(data) if stop is None else stop
    found = mp4_boxes(io.BytesIO(data), start, stop)
    return [(name, data[first:last]) for name, first, last in found]


def test_boxes_with_sizes_of_every_kind():
    data = box(b"ftyp", b"mp42") + long_box(b"moov", box(b"mvhd")) + struct.pack(">I4s", 0, b"mdat")
    data += b"to the end"
    found = [(b"ftyp", b"mp42"), (b"moov", box(b"mvhd")), (b"mdat", b"to the end")]
    assert contents(data) == found
    inner = len(box(b"ftyp", b"mp42")) + 16
    assert contents(data, inner, inner + 8) == [(b"mvhd", b"")]


@pytest.mark.parametrize(
    "damaged",
    [
        box(b"moov", b"1234")[:-1],
        long_box(b"moov", b"1234")[:-1],
        long_box(b"moov")[:12],
        struct.pack(">I4s", 7, b"moov"),
        struct.pack(">I4sQ", 1, b"moov", 15) + bytes(16),
        struct.pack(">I4sQ", 1, b"moov", 2**64 - 1),
        b"moov",
    ],
    ids=["cut", "cut 64-bit", "cut size", "small", "small 64-bit", "huge", "no header"],
)
def test_a_damaged_box_ends_the_file(damaged):
    assert contents(box(b"ftyp") + damaged) == [(b"ftyp", b"")]
