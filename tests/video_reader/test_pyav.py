"""Frames of PyAV."""

from __future__ import annotations

import struct

import pytest

from mmvitaccel.video_reader import open_video


@pytest.mark.extras("video", "av")
def test_side_data_that_pyav_does_not_know(jpegs, number_of):
    # JPEG's EXIF, with an orientation of 1, is such a one
    path = jpegs([(96, 48, n) for n in range(4)])
    tag = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x112, 3, 1, 1, 0) + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8", b"\xff\xd8" + segment))
    assert [number_of(f.image) for f in open_video(path)] == list(range(4))
