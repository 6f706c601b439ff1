"""Live sources: a local MJPEG server, and a fake capture that disconnects."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import frame_seconds, open_video, video
from mmvitaccel.video_reader.live import LiveCapture, LiveOptions
from mmvitaccel.video_reader.timing import Stamp, Unreadable
from mmvitaccel.video_reader.video import Video


class FakeCapture:
    """Returns frames whose brightness is their index, and waits ``pace`` seconds before each."""

    fps = count = duration = None
    damaged = 0

    def __init__(self, numbers, pace=0.0, gate=None):
        self.numbers, self.pace, self.gate = list(numbers), pace, gate
        self.closed = False

    def grab(self):
        if self.gate is not None:
            self.gate.acquire(timeout=5)
        time.sleep(self.pace)
        if not self.numbers:
            return None
        self.number = self.numbers.pop(0)
        return Stamp(self.number, None)

    def picture(self):
        return np.full((4, 4, 3), self.number, np.uint8)

    def close(self):
        self.closed = True


def live(capture, policy="all", reconnect=0, connect=None, said=None):
    say = (lambda sentence: None) if said is None else said.append
    options = LiveOptions(policy, reconnect, say, pause=0.01)
    return Video("camera", LiveCapture("camera", capture, connect, options))


def shades(frames):
    return [int(frame.image[0, 0, 0]) for frame in frames]


def test_all_frames_in_order_although_they_are_used_slowly():
    source = live(FakeCapture(range(10)))
    frames = []
    for frame in source:
        time.sleep(0.01)
        frames.append(frame)
        if len(frames) == 5:
            assert source.behind > 0
    assert shades(frames) == [frame.index for frame in frames] == list(range(10))
    assert source.live and source.length is None


def test_the_buffer_is_bounded_and_that_is_said():
    capture = FakeCapture(range(200))
    source = live(capture)
    iterator = iter(source)
    next(iterator)
    deadline = time.monotonic() + 5
    while len(capture.numbers) > 200 - 65 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(capture.numbers) >= 200 - 67
    assert len(list(iterator)) == 199
    assert any("policy 'all'): the last one waited" in note for note in source.notes())


def test_the_newest_frame_and_how_many_were_left_out():
    gate = threading.Semaphore(1)
    capture = FakeCapture(range(20), gate=gate)
    source = live(capture, "newest")
    iterator = iter(source)
    first = next(iterator)
    for _ in range(10):
        gate.release()
    deadline = time.monotonic() + 5
    while len(capture.numbers) > 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    second = next(iterator)
    assert (first.index, second.index) == (0, 10)
    assert shades([first, second]) == [0, 10]
    for _ in range(20):
        gate.release()
    rest = list(iterator)
    assert rest[-1].index == 19
    dropped = 20 - 2 - len(rest)
    assert f"{dropped} of 20 frames of camera were dropped" in " ".join(source.notes())


def test_seconds_are_those_of_arrival():
    start = time.monotonic()
    frames = list(live(FakeCapture(range(5), pace=0.03)))
    taken = time.monotonic() - start
    assert frames[0].seconds == 0
    steps = np.diff([frame.seconds for frame in frames])
    assert (steps >= 0.03).all() and frames[-1].seconds <= taken


def test_a_break_is_said():
    capture = FakeCapture(range(3))
    source = live(capture)
    assert len(list(source)) == 3
    (note,) = source.notes()
    assert note.startswith("camera disconnected after frame 2 (0.")
    assert capture.closed


def test_a_break_before_the_first_frame():
    source = live(FakeCapture([]))
    assert list(source) == []
    assert source.notes() == [
        "camera disconnected before its first frame; check it with another program."
    ]


def test_it_connects_again_when_asked_to():
    said, later = [], [None, FakeCapture([]), FakeCapture([3, 4])]

    def connect():
        capture = later.pop(0) if later else None
        if capture is None:
            raise Unreadable("gone")
        return capture

    source = live(FakeCapture(range(3)), reconnect=3, connect=connect, said=said)
    frames = list(source)
    assert shades(frames) == [frame.index for frame in frames] == list(range(5))
    assert said[:3] == [
        f"camera disconnected after 3 frames; reconnecting ({n} of 3)." for n in (1, 2, 3)
    ]
    assert said[3].startswith("camera is connected again after ")
    assert len(said) == 4 + 3
    (note,) = source.notes()
    assert note.startswith("camera disconnected after frame 4 (")
    assert note.endswith(" s after the first); reconnections before: 1.")


def test_an_error_of_the_backend_is_not_an_end():
    class Broken(FakeCapture):
        def picture(self):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(live(Broken(range(3))))


def test_leaving_early_stops_the_thread():
    capture = FakeCapture(range(10**6))
    source = live(capture)
    for _ in zip(range(3), source):
        pass
    source.close()
    deadline = time.monotonic() + 5
    while not capture.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capture.closed
    assert not any("disconnected" in note for note in source.notes())


@pytest.fixture
def serve():
    """``serve(handle)`` answers GET requests on loopback and returns the URL."""
    servers = []

    def run(handle):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                handle(self)

            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def mjpeg(count, pace):
    """A camera that sends ``count`` JPEG images and disconnects."""

    def handle(request):
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for number in range(count):
            picture = np.full((48, 64, 3), 10 * number, np.uint8)
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                request.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return
            time.sleep(pace)

    return handle


def test_an_mjpeg_camera_by_http(serve, backend):
    address = serve(mjpeg(20, 0.05))
    source = open_video(f"{address}/stream", policy="all")
    frames = list(source)
    assert source.live
    assert [round(shade / 10) for shade in shades(frames)] == list(range(20))[: len(frames)]
    assert len(frames) >= 18
    # the stream's own time stamps claim 25 frames a second
    assert frames[-1].seconds > 0.4
    assert any("disconnected" in note for note in source.notes())


def test_a_file_by_http_is_no_live_source(serve, backend, write, number_of):
    data = write("a.avi", "MJPG").read_bytes()

    def handle(request):
        request.send_response(200)
        request.send_header("Content-Type", "video/x-msvideo")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    source = open_video(f"{serve(handle)}/a.avi")
    frames = list(source)
    assert not source.live
    assert [number_of(frame.image) for frame in frames] == list(range(24))
    assert source.notes() == []


def test_an_address_that_does_not_answer(backend):
    with pytest.raises(UserError, match=r"rtsp://\*\*\*@127\.0\.0\.1:9/live cannot be opened as"):
        open_video("rtsp://me:secret@127.0.0.1:9/live")


def test_a_camera_that_is_not_there():
    for name in ("camera:77", "/dev/video77", "77"):
        with pytest.raises(UserError, match=f"cannot open {name}; check"):
            open_video(name)


def test_frames_of_a_live_source_are_not_counted(monkeypatch):
    monkeypatch.setattr(video, "open_remote", lambda source: FakeCapture(range(3)))
    with pytest.raises(UserError, match=r"camera is live, so its frames cannot be counted"):
        frame_seconds("camera")
