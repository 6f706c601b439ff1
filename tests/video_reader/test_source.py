"""Parsing of video sources."""

from __future__ import annotations

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.source import parse_source


@pytest.mark.parametrize(
    ("text", "number"),
    [("camera", 0), ("camera:2", 2), ("/dev/video3", 3), ("0", 0), (1, 1)],
)
def test_cameras(text, number):
    source = parse_source(text)
    assert (source.kind, source.target) == ("camera", number)


def test_a_file_stands_above_a_camera_and_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0", "clip[1].mp4", "50%d.mp4"):
        (tmp_path / name).write_bytes(b"x")
        assert parse_source(name).kind == "file"
        assert parse_source(tmp_path / name).kind == "file"


def test_files_by_address(tmp_path):
    path = tmp_path / "my clip.mp4"
    path.write_bytes(b"x")
    source = parse_source(path.as_uri())
    assert (source.kind, source.target) == ("file", str(path))
    with pytest.raises(UserError, match=r"is on the host 'server'; .*file:///path"):
        parse_source("file://server/clip.mp4")


@pytest.mark.parametrize("name", ["a b.mp4", "50%20.mp4", "a#1.mp4", "what?.mp4"])
def test_files_by_address_as_their_names_are_written(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert parse_source(f"file://{tmp_path}/{name}").target == f"{tmp_path}/{name}"
    assert parse_source((tmp_path / name).as_uri()).target == f"{tmp_path}/{name}"


def test_patterns_by_address(tmp_path):
    for pattern in ("%05d.png", "img%d.png", "*.png"):
        source = parse_source(f"file://{tmp_path}/{pattern}")
        assert (source.kind, source.target) == ("pictures", f"{tmp_path}/{pattern}")


def test_a_password_is_not_shown():
    source = parse_source("rtsp://me:secret@camera.local:554/live?x=1")
    assert source.name == "rtsp://***@camera.local:554/live?x=1"
    assert source.target == "rtsp://me:secret@camera.local:554/live?x=1"


def test_pictures(tmp_path):
    assert parse_source(tmp_path).kind == "pictures"
    assert parse_source(f"{tmp_path}/%06d.png").kind == "pictures"
    assert parse_source(f"{tmp_path}/*.png").kind == "pictures"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gone.mp4", r"the video gone\.mp4 does not exist; give a file, .*rtsp://.*/dev/video0"),
        ("", "the name of the video is empty"),
        ("ftp://host/a.mp4", "has the unsupported protocol 'ftp'; give one of file, http"),
        ("file:///gone.mp4", r"the video /gone\.mp4 does not exist"),
        ("file://", "the video file:// names no file; give file:///path"),
        ("http://[::1/a.mp4", r"the video http://\[::1/a\.mp4 is not a valid URL: Invalid IPv6"),
        ("rtsp://me:secret@[::1/a", r"the video \[::1/a is not a valid URL"),
    ],
)
def test_what_is_nothing(text, message):
    with pytest.raises(UserError, match=message):
        parse_source(text)
