"""Real-world files: rotated, damaged, with wrong headers or unusual codecs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import frame_seconds, open_indexed, open_video

VARIABLE = [40 * i for i in range(12)] + [480 + 160 * i for i in range(12)]


def test_frames_of_a_file(write, backend, number_of):
    with open_video(write()) as video:
        frames = list(video)
        assert (video.fps, video.length, video.live, video.given) == (25, 24, False, 24)
    assert [number_of(frame.image) for frame in frames] == list(range(24))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 25 for i in range(24)])
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image[5, 5].tolist()[0] > 230 and frames[0].image[5, 5].tolist()[2] < 40
    assert video.notes() == []


def test_selected_frames(write, backend, number_of):
    found = [(f.index, number_of(f.image)) for f in open_video(write()).select([3, 20, 99])]
    assert found == [(3, 3), (20, 20)]


def corner(image):
    """Return the position of the red corner: (bottom, right)."""
    red = image[..., 0].astype(int) - image[..., 2] > 100
    rows, columns = np.nonzero(red)
    return rows.mean() > image.shape[0] / 2, columns.mean() > image.shape[1] / 2


@pytest.mark.parametrize(
    ("degrees", "shape", "place"),
    [
        (90, (96, 48), (False, True)),
        (180, (48, 96), (True, True)),
        (270, (96, 48), (True, False)),
        ("left and right", (48, 96), (False, True)),
        ("up and down", (48, 96), (True, False)),
        ("rows and columns", (96, 48), (False, False)),
        ("the other diagonal", (96, 48), (True, True)),
    ],
)
def test_turned_and_mirrored_videos_are_upright(write, backend, degrees, shape, place, turn):
    path = turn(write(), degrees)
    for image in (next(iter(open_video(path))).image, open_indexed(path).frames([0])[0]):
        assert image.shape[:2] == shape
        assert corner(image) == place
        assert image.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "fourcc", "fps"), [("a.mp4", "mp4v", 1000), ("a.avi", "MJPG", 90000)]
)
def test_absurd_rates_are_unknown(write, backend, name, fourcc, fps):
    with open_video(write(name, fourcc, fps)) as video:
        frames = list(video)
    assert (video.fps, video.length, len(frames)) == (None, None, 24)
    assert [frame.seconds for frame in frames] == [0.0] + [None] * 23
    assert video.notes() == []
    told = list(open_video(write(name, fourcc, fps), fps=20))
    assert [frame.seconds for frame in told] == pytest.approx([i / 20 for i in range(24)])


@pytest.mark.parametrize("count", [0, 2**31 - 1, 2**32 - 2, 1000])
def test_absurd_counts_do_not_make_a_file_damaged(announcing, backend, count):
    with open_video(announcing(count)) as video:
        assert len(list(video)) == 24
    assert not any("damaged" in note for note in video.notes())


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
def test_containers_without_duration_or_rate(encode, reader, number_of, without_pyav):
    paths = [
        encode("a.ts"), encode("a.h264", container="h264"),
        encode("live.mkv", live="1"), encode("vfr.mkv", stamps=VARIABLE),
    ]  # fmt: skip
    if reader == "opencv":
        without_pyav()
    for path in paths:
        with open_video(path) as video:
            numbers = [number_of(frame.image) for frame in video]
        assert numbers == list(range(24)), path
        assert (video.length, video.notes()) == (None, []), path


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
@pytest.mark.parametrize("name", ["late.mkv", "late.mp4", "late.ts"])
def test_a_beginning_after_0_is_no_early_end(encode, reader, name, without_pyav):
    path = encode(name, stamps=[9000 + 40 * n for n in range(24)])
    if reader == "opencv":
        without_pyav()
    with open_video(path) as video:
        seconds = [frame.seconds for frame in video]
    assert seconds == pytest.approx([n / 25 for n in range(24)])
    assert video.notes() == []


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
@pytest.mark.parametrize("name", ["vfr.mkv", "vfr.mp4"])
def test_seconds_are_by_time_stamp(encode, reader, name, without_pyav):
    path = encode(name, stamps=VARIABLE)
    if reader == "opencv":
        without_pyav()
    assert frame_seconds(path) == pytest.approx([stamp / 1000 for stamp in VARIABLE])


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize(("name", "container"), [("a.mp4", "MP4/MOV"), ("a.webm", "WebM")])
def test_av1(encode, name, container, number_of, without_pyav):
    path = encode(name, "libsvtav1")
    assert [number_of(f.image) for f in open_video(path)] == list(range(24))
    without_pyav()
    with pytest.raises(
        UserError,
        match=rf"{name} cannot be opened as a video: the installed OpenCV cannot decode AV1 in "
        rf"{container}; pip install 'mmvitaccel\[video\]', or convert it: ffmpeg -i \S*{name} ",
    ):
        open_video(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"it is empty \(0 bytes\); get a new copy"),
        (b"\n<!DOCTYPE html><html>404</html>", "it is an HTML page; download the video itself"),
        (b"no video", "it is a text file; give a video"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "it is an HTML page; download the video itself"),
        (b"\x89PNG\r\n\x1a\n....", "it is a single picture; give its folder, a pattern"),
        (b"II*\0" + bytes(40), "it is a single picture"),
        (b"P6\n4 4\n255\n" + bytes(48), "it is a single picture"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "it is a single picture"),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(14) + b"ANIM", "animated WebP, which FFmpeg does not"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it contains audio but no video; give a video"),
        (b"ID3\4" + bytes(40), "it contains audio but no video"),
        (b"OggS" + bytes(24) + b"OpusHead", "it contains audio but no video"),
        (b"\0\0\0\x0cftypmp42\0\0\0\x10moovhdlrsoun", "it contains audio but no video"),
        (b"\x1a\x45\xdf\xa3" + bytes(40) + b"A_OPUS", "it contains audio but no video"),
        (b"\x1a\x45\xdf\xa3A_OPUS" + bytes(40) + b"V_MS/VFW", "an unknown codec in Matroska"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(12), r"MP4 without an index \(moov\), so it is inc"),
        (b"\0\0\0\x0cftypmp42\0\0\0\x0cmoovvvc1", r"H\.266 in MP4/MOV.*ffmpeg -i \S*a\.mp4"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), r"an unknown codec in Matroska.*damaged.* incomplete"),
        (b"\x91\x12\xff" * 99, r"unknown container and codec.*damaged"),
    ],
)
def test_files_that_are_no_videos(tmp_path, backend, content, message):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.mp4 cannot be opened as a video: .*{message}"):
        open_video(path)


def test_motion_jpeg_without_a_container_is_no_picture(jpegs, backend, number_of):
    path = jpegs([(96, 48, n) for n in range(12)])
    assert [number_of(f.image) for f in open_video(path)] == list(range(12))
    with pytest.raises(UserError, match="it is a single picture"):
        open_video(jpegs([(96, 48, 0)]))
    # what phones put behind a picture, announced by a segment of its own
    data = jpegs([(96, 48, 0), (96, 48, 1)]).read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe2\0\x06MPF\0" + data[2:])
    with pytest.raises(UserError, match="it is a single picture"):
        open_video(path)


@pytest.mark.extras("video", "av")
def test_an_animated_png(encode, number_of, without_pyav):
    path = encode("a.png", "apng", "apng", pixels="rgb24")
    assert [number_of(f.image) for f in open_video(path)] == list(range(24))
    without_pyav()
    assert [number_of(f.image) for f in open_video(path)] == list(range(24))


def test_pictures_of_another_size_in_between(jpegs, backend, number_of):
    sizes = [(96, 48)] * 6 + [(64, 96)] * 6
    path = jpegs([(*size, n) for n, size in enumerate(sizes)])
    if backend == "pyav":
        frames = [frame.image for frame in open_video(path)]
        assert [frame.shape[1::-1] for frame in frames] == sizes
        assert [number_of(frame) for frame in frames] == list(range(12))
        return
    frames = iter(open_video(path))
    assert [number_of(next(frames).image) for _ in range(6)] == list(range(6))
    with pytest.raises(
        UserError,
        match=r"a\.mjpeg change their size at frame 6, which OpenCV does not support; "
        r"pip install 'mmvitaccel\[video\]', or convert them to one size: ffmpeg -i \S*a\.mjpeg ",
    ):
        next(frames)
    with pytest.raises(UserError, match="frame 8 could be found but not decoded"):
        next(iter(open_video(path).select([8])))


def test_a_picture_that_repeats_has_its_size(jpegs, backend, number_of):
    path = jpegs([(96, 48, 5)] * 20)
    assert [number_of(f.image) for f in open_video(path)] == [5] * 20


def test_an_mp4_cut_short_lacks_its_index(write, backend):
    path = write()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"is an MP4 without an index \(moov\)"):
        open_video(path)


def test_a_picture_is_not_taken_for_a_series(tmp_path):
    import cv2

    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"a_{number:03}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"a_001\.png .*single picture; give its folder"):
        open_video(tmp_path / "a_001.png")


def test_an_end_before_the_announced_one_is_said(write, backend):
    path = write("a.avi", "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_video(path) as video:
        count = len(list(video))
    assert 2 < count < 20
    assert f"a.avi ended at frame {count} of 24: it is" in video.complaint()


def test_nothing_is_said_of_a_video_that_was_left_early(write, backend):
    video = open_video(write())
    next(iter(video))
    video.close()
    assert video.notes() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write):
    path = write()
    path.chmod(0)
    with pytest.raises(UserError, match=r"be read: Permission denied; check its permissions"):
        open_video(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "the frame rate is 0; give one above 0 and at most 480"),
        ({"policy": "oldest"}, "the policy is 'oldest'; give one of newest, all"),
        ({"reconnect": -1}, "reconnect is -1; give 0 or more"),
    ],
)
def test_options_that_mean_nothing(write, options, message):
    with pytest.raises(UserError, match=message):
        open_video(write(), **options)
