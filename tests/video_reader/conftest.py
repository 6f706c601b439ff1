"""Small videos, written by OpenCV or PyAV."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvitaccel.video_reader import backends, indexed, writer

HEIGHT, WIDTH = 48, 96
ONE = 0x10000
# Display matrices of tkhd that turn clockwise by so many degrees, and that mirror.
MATRICES = {
    90: (0, ONE, 0, -ONE, 0, 0, 0, 0, 0x40000000),
    180: (-ONE, 0, 0, 0, -ONE, 0, 0, 0, 0x40000000),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 0, 0x40000000),
    "left and right": (-ONE, 0, 0, 0, ONE, 0, 0, 0, 0x40000000),
    "up and down": (ONE, 0, 0, 0, -ONE, 0, 0, 0, 0x40000000),
    "rows and columns": (0, ONE, 0, ONE, 0, 0, 0, 0, 0x40000000),
    "the other diagonal": (0, -ONE, 0, -ONE, 0, 0, 0, 0, 0x40000000),
}


def _pictures(count: int = 24) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) RGB, each 6 levels brighter, with a red top left corner."""
    for number in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 40 + 6 * number, np.uint8)
        image[: HEIGHT // 2, : WIDTH // 4] = (255, 0, 0)
        yield image


def _number_of(image: np.ndarray) -> int:
    """Return the index of a frame of ``pictures``; codecs change its brightness by a few levels."""
    height, width = image.shape[:2]
    middle = image[height // 2 + 4 : -4, width // 2 + 4 : -4]
    return round((float(np.median(middle)) - 38) / 6)


@pytest.fixture
def pictures() -> Callable[[int], Iterator[np.ndarray]]:
    """``pictures(24)`` yields 24 frames."""
    return _pictures


@pytest.fixture
def number_of() -> Callable[[np.ndarray], int]:
    """Returns the index of a frame, given its image."""
    return _number_of


@pytest.fixture
def turn() -> Callable[[Path, int | str], Path]:
    """``turn(path, 90)`` writes a rotated mp4, ``turn(path, "up and down")`` a mirrored one."""
    return _turn


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write frames with OpenCV: ``write('clip.mp4', fourcc='mp4v', fps=25, count=24)``."""

    def run(name: str = "clip.mp4", fourcc: str = "mp4v", fps: float = 25, count: int = 24) -> Path:
        path = tmp_path / name
        code = cv2.VideoWriter_fourcc(*fourcc)
        video = cv2.VideoWriter(str(path), code, fps, (WIDTH, HEIGHT))
        for image in _pictures(count):
            video.write(image[..., ::-1].copy())
        video.release()
        return path

    return run


@pytest.fixture
def jpegs(tmp_path: Path) -> Callable[..., Path]:
    """Motion JPEG without a container, as cameras write it: ``jpegs([(96, 48, 0), (64, 96, 1)])``.

    Each frame is given by its width, its height and which of the pictures it is.
    """

    def run(frames: Sequence[tuple[int, int, int]], name: str = "a.mjpeg") -> Path:
        path = tmp_path / name
        pictures = list(_pictures())
        images = [cv2.resize(pictures[n][..., ::-1], (w, h)) for w, h, n in frames]
        path.write_bytes(b"".join(cv2.imencode(".jpg", i)[1].tobytes() for i in images))
        return path

    return run


@pytest.fixture
def announcing(write: Callable[..., Path]) -> Callable[[int], Path]:
    """``announcing(1000)`` writes 24 frames and a header with a count of 1000."""

    def run(count: int) -> Path:
        path = write("a.avi", "MJPG")
        data = bytearray(path.read_bytes())
        for place in (data.find(b"strh") + 8 + 32, data.find(b"avih") + 8 + 16):
            data[place : place + 4] = struct.pack("<I", count)
        path.write_bytes(data)
        return path

    return run


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Path]:
    """Write frames with PyAV, in any codec and container, with time stamps in milliseconds."""

    def run(
        name: str, codec: str = "libx264", container: str | None = None,
        stamps: Sequence[int] | None = None, count: int = 24, pixels: str = "yuv420p",
        **options: str,
    ) -> Path:  # fmt: skip
        path = tmp_path / name
        # As root, SVT-AV1 gives the calling thread a real-time priority and never resets it.
        with ThreadPoolExecutor(1) as thread:
            given = (path, codec, container, stamps, count, pixels, options)
            thread.submit(_encode, *given).result()
        return path

    return run


def _encode(
    path: Path, codec: str, container: str | None, stamps: Sequence[int] | None, count: int,
    pixels: str, options: dict[str, str],
) -> None:  # fmt: skip
    import av

    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(_pictures(count)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def _turn(path: Path, degrees: int | str) -> Path:
    """Write a display matrix into an mp4, as phones do."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", *MATRICES[degrees])
    turned = path.with_name(f"turned{degrees}.mp4")
    turned.write_bytes(data)
    return turned


@pytest.fixture(params=["opencv", pytest.param("pyav", marks=pytest.mark.extras("video", "av"))])
def backend(request: pytest.FixtureRequest, without_pyav: Callable[[], None]) -> str:
    """Run the test with each backend; skip PyAV if it is not installed."""
    if request.param == "opencv":
        without_pyav()
    return request.param


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to hide PyAV from the reader."""

    def run() -> None:
        for module in (backends, indexed, writer):
            monkeypatch.setattr(module, "is_installed", lambda: False)

    return run
