"""Writing of frames, read back."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import VideoWriter, open_video
from mmvitaccel.video_reader.signature import codec_name


def test_frames_come_back(tmp_path, backend, number_of, pictures):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 12.5) as writer:
        for image in pictures(10):
            writer.add(image)
    assert writer.codec == codec_name(path) == {"pyav": "H.264", "opencv": "MPEG-4"}[backend]
    with open_video(path) as video:
        frames = list(video)
        assert (video.fps, video.length) == (12.5, 10)
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    assert frames[0].image[5, 5, 0] > 200 > 60 > frames[0].image[5, 5, 2]


def test_odd_sides(tmp_path, backend):
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        writer.add(np.full((33, 51, 3), 90, np.uint8))
    image = next(iter(open_video(tmp_path / "out.mp4"))).image
    assert image.shape[0] in (32, 33, 34) and image.shape[1] in (50, 51, 52)


def test_frames_of_another_size(tmp_path, backend):
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        writer.add(np.zeros((32, 48, 3), np.uint8))
        with pytest.raises(
            ValueError, match=r"shape \(48, 32, 3\) and the first had \(32, 48, 3\)"
        ):
            writer.add(np.zeros((48, 32, 3), np.uint8))


def test_a_folder_that_is_not_there(tmp_path, backend):
    with pytest.raises(UserError, match=r"gone/out\.mp4 cannot be written as a video"):
        VideoWriter(tmp_path / "gone" / "out.mp4", 25).add(np.zeros((32, 48, 3), np.uint8))


needs_av = pytest.mark.extras("video", "av")


@pytest.fixture
def av():
    import av

    return av


@needs_av
def test_an_ffmpeg_without_an_encoder_is_named(tmp_path, av, monkeypatch):
    opened = av.open

    class Container:
        def __init__(self, *args, **kwargs):
            self.inner = opened(*args, **kwargs)
            self.close = self.inner.close

        def add_stream(self, name, **kwargs):
            return self.inner.add_stream("no_such_encoder", **kwargs)

    monkeypatch.setattr(av, "open", Container)
    with (
        pytest.raises(UserError, match=r"out\.mp4 cannot be written: PyAV's FFmpeg has no H"),
        VideoWriter(tmp_path / "out.mp4", 25) as writer,
    ):
        writer.add(np.zeros((32, 48, 3), np.uint8))


@needs_av
def test_frames_that_the_encoder_refuses_are_named(tmp_path, av):
    with (
        pytest.raises(UserError, match="refuses frames of 17000 x 16 pixels"),
        VideoWriter(tmp_path / "out.mp4", 25) as writer,
    ):
        writer.add(np.zeros((16, 17000, 3), np.uint8))


@needs_av
def test_a_full_disk_stays_an_error_of_the_disk(av):
    rng = np.random.default_rng(0)
    with pytest.raises(OSError) as caught, VideoWriter("/dev/full", 25) as writer:
        for _ in range(300):
            writer.add(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert caught.value.errno == errno.ENOSPC
