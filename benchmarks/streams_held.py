"""Number of streams that a StreamWorker holds with a whole detector, dense against eventful.

    python benchmarks/streams_held.py VIDEO                   # the small detector, three minutes
    python benchmarks/streams_held.py VIDEO --models small vitdet-s vitdet-b
    python benchmarks/streams_held.py VIDEO --ray             # and as a service of Ray's
    python benchmarks/streams_held.py VIDEO --record          # keep the rows in benchmarks/results

Cameras show the same video with different offsets and send frames at a fixed rate, spread evenly in
time. A number of streams is held if nine of ten frames are answered before their stream's next
frame is due, no frame is dropped, and they bring at most a twentieth more frames than the worker
computes of streams that always have one. The largest such number is searched by bisection, to a
tenth. Time is measured from when the camera has the picture until the boxes are available. Each row
is a number of streams that was played; ``largest`` marks the largest that is held.
``streams_held_plot.py`` plots them. The detectors have fixed random weights.

``--ray`` also plays all of it against the service as users start it: one replica, raw pixels over
HTTP. It needs the extra ``serve``.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Union

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.serving import DetectorModel, Refused, StreamWorker
from mmvitaccel.testing.http_streams import HttpStreams
from mmvitaccel.testing.service import Service
from mmvitaccel.video_reader import open_video

ROOT = Path(__file__).parents[1]
_VID = ROOT / "configs" / "eventful"
TOKEN = "benchmark"
_STEP = 0.85  # ratio of the second number tried to the first, if the first is not held
_NOISE = 0.05  # tolerated rate above the measured maximum, as a share of it
_LEAST_FRAMES = 3  # of each stream
# Seconds; if a number takes at most this long to play, a quarter, half and three quarters of the
# largest number that is held are played too.
_SHORT = 3.0
Streams = Union[StreamWorker, HttpStreams]


@dataclass(frozen=True)
class Choice:
    """A detector to serve.

    Attributes:
        config: Config of the detector.
        size: Side of its pictures in pixels.
        k: Tokens of a frame that pass a gate in the eventful detector.
        backbone: Changes to the config of its transformer.
    """

    config: Path
    size: int
    k: int
    backbone: dict


MODELS = {
    "small": Choice(_VID / "tiny" / "faster-rcnn_vitdet-tiny_vid-128_dense.py", 320, 64, {}),
    "vitdet-s": Choice(
        _VID / "faster-rcnn_vitdet-b_vid-672_dense.py", 320, 32, dict(embed_dim=384, num_heads=6)
    ),
    "vitdet-b": Choice(_VID / "faster-rcnn_vitdet-b_vid-672_dense.py", 672, 64, {}),
}


@dataclass(frozen=True)
class Result:
    """One row: a number of streams that was played.

    Attributes:
        model: A key of :data:`MODELS`.
        size: Side of its pictures.
        way: ``worker``, or ``Ray`` for a worker behind HTTP.
        mode: ``dense`` or ``eventful``.
        k: Mean number of tokens per stream of a batch that pass a gate; None if dense.
        frames_per_second: Frames per second of streams that always have a frame.
        ratio: ``frames_per_second`` over that of the dense detector; None if dense.
        rate: Frames per second of each camera.
        streams: Number of streams; 0 if not even one is held.
        p90_ms: 90th percentile of their answer times; None if a frame was dropped.
        largest: Whether it is the largest number that is held.
        stream_megabytes: Memory of one stream.
    """

    model: str
    size: int
    way: str
    mode: str
    k: int | None
    frames_per_second: float
    ratio: float | None
    rate: float
    streams: int
    p90_ms: float | None
    largest: bool
    stream_megabytes: float


def config_of(name: str) -> Config:
    """Make the config of a detector."""
    choice = MODELS[name]
    cfg: Config = load_config(str(choice.config), {})
    cfg.model.data_preprocessor.pad_size_divisor = choice.size
    cfg.model.backbone.update(img_size=choice.size, **choice.backbone)
    cfg.model.neck.in_channels = cfg.model.backbone.embed_dim
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (choice.size, choice.size)
    return cfg


@contextmanager
def worker_of(name: str, k: int | None, args: argparse.Namespace) -> Iterator[StreamWorker]:
    """Make a worker with a detector of fixed random weights."""
    torch.manual_seed(0)
    model = DetectorModel(config_of(name), None, k, max_streams=args.most)
    with StreamWorker(model, max_open=args.most, max_batch=args.batch) as worker:
        yield worker


@contextmanager
def service_of(name: str, k: int | None, args: argparse.Namespace) -> Iterator[HttpStreams]:
    """Start a service with the same detector."""
    folder = Path(tempfile.mkdtemp(prefix="mmv"))
    config, weights = folder / "config.py", folder / "weights.pth"
    torch.manual_seed(0)
    cfg = config_of(name)
    torch.save(dict(state_dict=DetectorModel(cfg, None).model.state_dict()), weights)
    cfg.dump(config)
    started = Service(
        folder,
        dict(
            config=str(config), checkpoint=str(weights), k=k, replicas=1, max_open=args.most,
            max_streams=args.most, max_batch=args.batch,
        ),
        threads=torch.get_num_threads(),
    )  # fmt: skip
    try:
        started.wait_until_ready()
        streams = HttpStreams(started, 2 * args.most)
        yield streams
        streams.close()
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


WAYS = {"worker": worker_of, "Ray": service_of}


def pictures_of(video: Path, size: int, count: int) -> list[np.ndarray]:
    """Read the first frames (h, w, 3), with a long side of ``size`` pixels."""
    shown = []
    for frame in islice(open_video(video), count):
        height, width = frame.image.shape[:2]
        scale = size / max(height, width)
        shown.append(cv2.resize(frame.image, (round(width * scale), round(height * scale))))
    return shown


class Cameras:
    """Streams that show a video with different offsets.

    Args:
        worker: The worker or the service.
        shown: Pictures of the video, which is played forwards and backwards.
        count: Number of streams; they are opened and their first frames computed.
    """

    def __init__(self, worker: Streams, shown: Sequence[np.ndarray], count: int) -> None:
        self.worker, self.names = worker, [f"camera-{n}" for n in range(count)]
        self.shown = [*shown, *reversed(shown)]
        self.numbers = dict.fromkeys(self.names, 0)
        for name in self.names:
            worker.open_stream(name, TOKEN)
            self.bring(name).result()

    def bring(self, name: str):
        """Send a stream's next frame."""
        number = self.numbers[name]
        self.numbers[name] += 1
        place = (7 * self.names.index(name) + number) % len(self.shown)
        return self.worker.submit(name, number, self.shown[place], TOKEN)

    def saturated(self, seconds: float) -> float:
        """Frames per second of streams that always have a frame, over at least the given time."""
        self._all()
        rounds, start = 0, time.perf_counter()
        while rounds < 2 or time.perf_counter() - start < seconds:
            self._all()
            rounds += 1
        return rounds * len(self.names) / (time.perf_counter() - start)

    def _all(self) -> None:
        for answer in [self.bring(name) for name in self.names]:
            answer.result()

    def p90(self, rate: float, seconds: float) -> float | None:
        """Seconds until nine of ten frames have an answer; None if a frame was dropped."""
        done: list[float] = []
        waiting, start = [], time.perf_counter()
        gap = 1 / rate / len(self.names)
        for number in range(max(int(seconds / gap), _LEAST_FRAMES * len(self.names))):
            due = start + number * gap
            time.sleep(max(due - time.perf_counter(), 0))
            answer = self.bring(self.names[number % len(self.names)])
            answer.add_done_callback(lambda _, due=due: done.append(time.perf_counter() - due))
            waiting.append(answer)
        errors = [answer.exception() for answer in waiting]
        for error in errors:
            if not (error is None or isinstance(error, Refused)):
                raise error
        return None if any(errors) else float(np.percentile(done, 90))

    def close(self) -> None:
        """Close the streams."""
        for name in self.names:
            self.worker.close_stream(name, TOKEN)


def capacity_of(
    worker: Streams, shown: Sequence[np.ndarray], args: argparse.Namespace
) -> tuple[float, float]:
    """Frames per second of one stream or of a full batch, whichever is more.

    Also returns the megabytes of one stream's state.
    """

    def saturated(count: int) -> tuple[float, float]:
        cameras = Cameras(worker, shown, count)
        found, report = cameras.saturated(args.seconds), worker.report()
        cameras.close()
        return found, report.memory_bytes / max(report.remembered, 1) / 1e6

    alone, each = saturated(1)
    # no more than are held at the lowest rate, because a large detector is slow
    count = min(args.batch, args.most, int(alone / min(args.rates)))
    return (alone if count < 2 else max(alone, saturated(count)[0])), each


def held(
    worker: Streams,
    shown: Sequence[np.ndarray],
    rate: float,
    capacity: float,
    most: int,
    seconds: float,
) -> tuple[int, dict[int, float | None]]:
    """Find the largest number of streams that is held, and the p90 of all numbers played.

    A p90 is in seconds; None if a frame was dropped.
    """
    played: dict[int, float | None] = {}

    def holds(number: int) -> bool:
        cameras = Cameras(worker, shown, number)
        played[number] = p90 = cameras.p90(rate, seconds)
        cameras.close()
        return p90 is not None and p90 < 1 / rate

    top = min(int((1 + _NOISE) * capacity / rate), most)
    low, high, number = 0, top + 1, top
    while high - low > max(1, low // 10):
        low, high = (number, high) if holds(number) else (low, number)
        number = (low + high) // 2 if low or len(played) > 1 else int(_STEP * high)
    if max(seconds, _LEAST_FRAMES / rate) <= _SHORT:
        for number in sorted({low // 4, low // 2, 3 * low // 4} - {0, *played}):
            holds(number)
    return low, played


def measure(
    name: str, way: str, k: int | None, shown: Sequence[np.ndarray], args: argparse.Namespace
) -> list[Result]:
    """Measure the rows of one detector, dense or eventful, without ``ratio``."""
    rows = []
    with WAYS[way](name, k, args) as worker:
        capacity, each = capacity_of(worker, shown, args)
        about = (name, MODELS[name].size, way, "dense" if k is None else "eventful", k)
        for rate in args.rates:
            largest, played = held(worker, shown, rate, capacity, args.most, args.seconds)
            for number, p90 in sorted({**({} if largest else {0: None}), **played}.items()):
                ms = None if p90 is None else 1e3 * p90
                row = (capacity, None, rate, number, ms, number == largest, each)
                rows.append(Result(*about, *row))
    return rows


def row_text(row: Result) -> str:
    """Format a row."""
    p90 = "-" if row.p90_ms is None else f"{row.p90_ms:.0f}"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    return (
        f"{row.model:10s}{row.size:5d} {row.way:7s}{row.mode:10s}{row.k or '-':>5}"
        f"{row.frames_per_second:9.1f}{ratio:>7s}{row.rate:7g}{row.streams:9d}{p90:>8s}"
        f"{row.stream_megabytes:8.0f}"
    )


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print what is held, and write all rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--models", nargs="+", default=["small"], choices=list(MODELS))
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.2, 0.5, 1, 2, 5, 10],
        help="frames per second of each camera",
    )
    parser.add_argument(
        "--ray", action="store_true", help="also measure the service, after the worker"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="minimum seconds for each number"
    )
    parser.add_argument("--batch", type=int, default=8, help="maximum frames in a batch")
    parser.add_argument("--most", type=int, default=128, help="maximum number of streams")
    parser.add_argument("--frames", type=int, default=40, help="frames of the video")
    add_record_option(parser)
    args = parser.parse_args(argv)
    if args.ray:
        require("serve", "ray")
    recording = Recording(args.record, __file__, argv)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("model      size way    mode          k frames/s  ratio   rate  streams  p90 ms      MB")
    rows: list[Result] = []
    for name in args.models:
        shown = pictures_of(args.video, MODELS[name].size, args.frames)
        for way in ("worker", "Ray") if args.ray else ("worker",):
            dense = measure(name, way, None, shown, args)
            eventful = measure(name, way, MODELS[name].k, shown, args)
            ratio = eventful[0].frames_per_second / dense[0].frames_per_second
            found = [*dense, *(replace(row, ratio=ratio) for row in eventful)]
            for row in (row for row in found if row.largest):
                print(row_text(row), flush=True)
            rows += found
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
