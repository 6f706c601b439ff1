"""Clips that are drawn, and those that are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmvitaccel.app import clips
from mmvitaccel.app.clips import check_clip, draw_clips, given_clips
from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import open_video
from tests.app.conftest import write_clip

PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"


def test_drawn_clips_are_videos(tmp_path):
    drawn = draw_clips(tmp_path, frames=3)
    assert list(drawn) == ["fixed camera, drawn", "panning camera, drawn"]
    for path in drawn.values():
        check_clip(path, "drawn")
        assert [frame.image.shape for frame in open_video(path)] == [(320, 320, 3)] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^mine\.mp4 cannot be opened as a video: it is empty"),
        (b"<html><body>", "it is an HTML page"),
        (PLAYLIST, "it is a text file; give a video"),
        (PLAYLIST + bytes(16), r"^mine\.mp4 is not in a known video container"),
        (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 200, r"mine\.mp4 .* \(moov\)"),
    ],
)
def test_what_is_no_video_is_refused_by_its_users_name(tmp_path, content, message):
    path = tmp_path / "secret-place"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        check_clip(path, "mine.mp4")
    assert "secret-place" not in str(caught.value)


def test_a_playlist_in_disguise_is_not_opened(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(PLAYLIST + bytes(16))
    monkeypatch.setattr(clips, "open_video", lambda path: pytest.fail("opened"))
    with pytest.raises(UserError, match="not in a known video container"):
        check_clip(tmp_path / "clip.mp4", "mine")


def test_a_picture_and_a_huge_frame_are_refused(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"it is a single picture"):
        check_clip(tmp_path / "a.png", "mine")
    monkeypatch.setattr(clips, "_MOST_PIXELS", 2000)
    path = write_clip(tmp_path / "clip.mp4", 2, 0)
    with pytest.raises(UserError, match="mine has frames of 56 x 40 pixels, above the limit"):
        check_clip(path, "mine")


def test_two_given_clips_of_one_name_are_refused(tmp_path):
    """One of them could not be chosen."""
    paths = [write_clip(tmp_path / name, 2, 0) for name in ("a.mp4", "b.mp4")]
    assert given_clips(paths) == {"a.mp4": paths[0], "b.mp4": paths[1]}
    (tmp_path / "other").mkdir()
    again = write_clip(tmp_path / "other" / "a.mp4", 2, 0)
    with pytest.raises(UserError, match=r"/a\.mp4 and .*other/a\.mp4 have the same name; rename"):
        given_clips([*paths, again])
