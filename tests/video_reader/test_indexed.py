"""Random access to frames by index and time."""

from __future__ import annotations

import numpy as np
import pytest

from mmvitaccel.video_reader import open_indexed, open_video

VARIABLE = [40 * i for i in range(12)] + [480 + 160 * i for i in range(12)]


def test_frames_by_number(write, backend, number_of):
    video = open_indexed(write())
    assert (len(video), video.fps) == (24, 25)
    assert [number_of(image) for image in video.frames([20, 3, 3, 0])] == [20, 3, 3, 0]


@pytest.mark.parametrize("count", [0, 2**31 - 1, 2**32 - 2, 1000])
def test_absurd_counts(announcing, backend, count, number_of):
    """decord would allocate memory for all of them and kill the process."""
    video = open_indexed(announcing(count))
    assert len(video) == 24
    assert [number_of(image) for image in video.frames([23, 0])] == [23, 0]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_test_and_stream_see_the_same_picture(write, backend, degrees, turn):
    path = turn(write(), degrees)
    streamed = next(iter(open_video(path))).image
    (tested,) = open_indexed(path).frames([0])
    assert tested.shape == streamed.shape
    assert abs(tested.astype(int) - streamed).max() <= 2


def test_stretches_of_an_even_rate(write, backend):
    video = open_indexed(write())
    for start, stop in ((0.0, 0.96), (0.2, 0.4), (0.21, 0.49), (0.37, 9.0)):
        expected = (round(start * 25), min(round(stop * 25), 24))
        assert video.between(start, stop) == expected
    assert video.end == pytest.approx(0.96)


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_stretches_where_the_rate_changes(encode, reader, name, number_of, without_pyav):
    path = encode(name, stamps=VARIABLE)
    if reader == "opencv":
        without_pyav()
    video = open_indexed(path)
    first, last = video.between(0.48, 1.6)
    assert np.allclose(video.seconds[first:last], np.arange(0.48, 1.55, 0.16), atol=1e-3)
    assert [number_of(image) for image in video.frames(range(first, last))] == list(range(12, 19))
    assert video.rate(first, last) == pytest.approx(6.25, rel=1e-3)
    assert video.rate(0, 12) == pytest.approx(25, rel=1e-3)


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
def test_what_cannot_be_sought_in(encode, reader, number_of, without_pyav):
    paths = [encode("a.ts"), encode("a.h264", container="h264"), encode("a.mkv", live="1")]
    if reader == "opencv":
        without_pyav()
    for path in paths:
        video = open_indexed(path)
        assert len(video) == 24
        assert [number_of(image) for image in video.frames([21, 2, 7])] == [21, 2, 7], path


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
def test_recordings_joined_end_to_end(encode, reader, number_of, without_pyav, tmp_path):
    first, second = encode("a.ts", count=12), encode("b.ts", count=24)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    if reader == "opencv":
        without_pyav()
    video = open_indexed(path)
    assert len(video) == 36
    assert [number_of(image) for image in video.frames([11, 12, 30, 3])] == [11, 0, 18, 3]
    assert np.allclose(np.diff(video.seconds), 0.04, atol=1e-3)


@pytest.mark.extras("video", "av")
@pytest.mark.parametrize("reader", ["opencv", "pyav"])
def test_frames_that_an_edit_list_cuts_off(encode, reader, number_of, without_pyav):
    path = encode("a.mp4", stamps=[40 * n - 200 for n in range(24)])
    if reader == "opencv":
        without_pyav()
    video = open_indexed(path)
    assert [number_of(image) for image in video.frames(range(len(video)))] == list(range(5, 24))


@pytest.mark.extras("video", "av")
def test_av1_in_a_data_set(encode, number_of):
    video = open_indexed(encode("a.webm", "libsvtav1"))
    assert [number_of(image) for image in video.frames([21, 2, 7])] == [21, 2, 7]


def test_an_unknown_rate_is_none(write, backend, number_of):
    video = open_indexed(write(fps=1000))
    assert video.fps is None
    assert np.isnan(video.seconds[1:]).all()
    assert [number_of(image) for image in video.frames([5])] == [5]


def test_mmactions_own_decoding_reads_it(write, backend, number_of):
    from mmaction.datasets.transforms import DecordDecode

    results = dict(video_reader=open_indexed(write()), frame_inds=np.array([20, 3, 3, 0]))
    images = DecordDecode().transform(results)["imgs"]
    assert [number_of(image) for image in images] == [20, 3, 3, 0]
