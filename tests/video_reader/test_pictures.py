"""Numbered images read as a video."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import frame_seconds, open_indexed, open_video


def draw(folder, names):
    """Write images of one colour: red is 255, green and blue are given by ``names``."""
    folder.mkdir(exist_ok=True)
    for name, shade in names.items():
        image = np.full((8, 12, 3), shade, np.uint8)
        image[..., 2] = 255
        cv2.imwrite(str(folder / name), image)
    return folder


def shades(source):
    return [int(frame.image[0, 0, 2]) for frame in open_video(source)]


def test_a_folder_in_order_of_numbers(tmp_path):
    folder = draw(tmp_path / "f", {f"frame_{n}.png": n for n in (10, 9, 100, 1)})
    (folder / "notes.txt").write_text("no picture")
    (folder / ".frame_5.png").write_bytes(b"hidden")
    assert shades(folder) == [1, 9, 10, 100]
    with open_video(folder, fps=10) as video:
        frames = list(video)
        assert (video.fps, video.length) == (10, 4)
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all((frame.image[..., 0] == 255).all() for frame in frames)  # RGB
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_patterns(tmp_path):
    names = {f"{n:06d}.png": n for n in (2, 1, 3)} | {"mask_000001.png": 200, "1.jpg": 9}
    folder = draw(tmp_path / "f", names)
    assert shades(f"{folder}/%06d.png") == [1, 2, 3]
    assert shades(f"{folder}/mask_*.png") == [200]
    assert shades(f"{folder}/00*.png") == [1, 2, 3]


def test_no_rate_no_seconds(tmp_path):
    folder = draw(tmp_path / "f", {"1.png": 1, "2.png": 2})
    assert frame_seconds(folder) == [0.0, None]


def test_data_sets_read_them_too(tmp_path):
    folder = draw(tmp_path / "f", {f"{n}.png": n for n in range(1, 12)})
    video = open_indexed(folder)
    assert (len(video), video.fps) == (11, None)
    assert [int(f[0, 0, 2]) for f in video.frames([10, 0, 10, 4])] == [11, 1, 11, 5]
    with pytest.raises(UserError, match=r"neither time stamps nor a frame rate.*0\.00 s to 1\.00"):
        video.between(0.0, 1.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, r"contains no pictures \(\.bmp, \.jfif"),
        ({"a.png": 1, "b.png": 2}, r"a\.png has no number in its name"),
        ({"1.png": 1, "01.png": 2}, r"01\.png and 1\.png have the same number"),
        ({"1.png": 1, "1.jpg": 2}, r"1\.jpg and 1\.png have the same number"),
        ({"f0.5.png": 1}, r"the picture f0\.5\.png has a decimal point in its number, but frame "
                          r"numbers are whole; rename .* such as f0\.%d\.png"),
        ({"0.25.png": 1, "0.5.png": 2}, r"0\.25\.png has a decimal point"),
        ({"s1.0001.png": 1, "s1.2.png": 2}, r"s1\.0001\.png has a decimal point"),
        ({"l1.png": 1, "r1.png": 2}, r"contains 2 series of pictures \(l\*, r\*\); give a pattern"),
    ],
)  # fmt: skip
def test_pictures_that_are_no_video(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        open_video(draw(tmp_path / "f", names))


def test_numbers_behind_another_one(tmp_path):
    padded = draw(tmp_path / "padded", {f"shot1.{n:04d}.png": n for n in (10, 9)})
    assert shades(padded) == [9, 10]
    plain = draw(tmp_path / "plain", {f"shot1.{n}.png": n for n in (10, 9)})
    assert shades(f"{plain}/shot1.%d.png") == [9, 10]
    # a pattern says which of two numbers counts the frames
    cameras = draw(tmp_path / "cameras", {f"{n}_cam1.png": n for n in (3, 2)})
    assert shades(f"{cameras}/%d_cam1.png") == [2, 3]


def test_a_damaged_picture_is_named(tmp_path):
    folder = draw(tmp_path / "f", {"1.png": 1, "2.png": 2})
    (folder / "2.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"the picture .*2\.png \(0 bytes\) cannot be read"):
        list(open_video(folder))


def test_pictures_of_several_sizes_are_no_clip(tmp_path):
    folder = draw(tmp_path / "f", {"1.png": 1, "3.png": 3})
    cv2.imwrite(str(folder / "2.png"), np.zeros((6, 4, 3), np.uint8))
    assert [f.image.shape for f in open_video(folder)] == [(8, 12, 3), (6, 4, 3), (8, 12, 3)]
    video = open_indexed(folder)
    assert [f.shape for f in video.frames([2, 0])] == [(8, 12, 3)] * 2
    with pytest.raises(UserError, match=r"pictures of \S*f have several sizes \(12 x 8, 4 x 6\)"):
        video.frames([0, 1])


def test_a_pattern_of_what_are_no_pictures(tmp_path):
    for name in ("1.mp4", "50%_1.mp4"):
        (tmp_path / name).write_bytes(b"x")
    for pattern in ("%d.mp4", "50%_*.mp4"):
        with pytest.raises(UserError, match=r"mp4 contains no pictures \(\.bmp, "):
            open_video(f"{tmp_path}/{pattern}")


def test_a_percent_sign_beside_a_pattern(tmp_path):
    folder = draw(tmp_path / "f", {f"50%_{n}.png": n for n in (2, 1)})
    assert shades(f"{folder}/50%_*.png") == [1, 2]
    assert shades(f"{folder}/50%_%d.png") == [1, 2]


def test_a_pattern_without_pictures(tmp_path):
    with pytest.raises(UserError, match=r"%06d\.png contains no pictures"):
        open_video(f"{tmp_path}/gone/%06d.png")
