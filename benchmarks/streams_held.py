"""How many streams a StreamWorker holds: a whole detector, computed whole against eventful.

    python benchmarks/streams_held.py VIDEO                   # the small detector, a minute
    python benchmarks/streams_held.py VIDEO --models vitdet-s
    python benchmarks/streams_held.py VIDEO --plot held.png   # latency against streams
    python benchmarks/streams_held.py VIDEO --record          # keep the rows in benchmarks/results

Cameras that show one video, each some frames further on, bring frames at a rate, spread evenly in
time. So many streams are held as have an answer within one frame's time in nine of ten frames, with
none left out. Time counts from when the camera has the picture, and ends with the boxes. Every
number of streams is played: from what the worker takes at most, upwards or downwards in steps. The
detectors have fixed random weights.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmvitaccel.analysis.sweep.plot import Line, Panel, save_panels
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.serving import DetectorModel, Refused, StreamWorker
from mmvitaccel.video_reader import open_video

ROOT = Path(__file__).parents[1]
_VID = ROOT / "configs" / "eventful"
TOKEN = "benchmark"
_STEP = 1.15  # from one number of streams to the next
_MOST_PROBES = 4


@dataclass(frozen=True)
class Choice:
    """A detector to serve.

    Attributes:
        config: That it is made from.
        size: Side of its pictures, in pixels.
        k: Tokens of a frame that pass a gate when it is eventful.
        backbone: What is changed in its transformer.
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
    """One row of the table.

    Attributes:
        model: A name of :data:`MODELS`.
        size: Side of its pictures.
        mode: ``dense`` or ``eventful``.
        k: Tokens that pass a gate, the mean over a batch's streams; None of a dense one.
        frames_per_second: That the worker computes of streams which always have a frame.
        rate: Frames a second of each camera.
        streams: That are held.
        p90_ms: Of their answers; None where not even one is held.
        stream_megabytes: Memory of one stream.
    """

    model: str
    size: int
    mode: str
    k: int | None
    frames_per_second: float
    rate: float
    streams: int
    p90_ms: float | None
    stream_megabytes: float


@dataclass(frozen=True)
class Played:
    """A number of streams that was played.

    Attributes:
        label: Of the model and mode.
        rate: Frames a second of each camera.
        streams: That number.
        p90_ms: Of their answers; None where a frame was left out.
    """

    label: str
    rate: float
    streams: int
    p90_ms: float | None


def make_model(name: str, eventful: bool, most: int) -> DetectorModel:
    """A detector with fixed random weights."""
    choice = MODELS[name]
    cfg: Config = load_config(str(choice.config), {})
    cfg.model.data_preprocessor.pad_size_divisor = choice.size
    cfg.model.backbone.update(img_size=choice.size, **choice.backbone)
    cfg.model.neck.in_channels = cfg.model.backbone.embed_dim
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (choice.size, choice.size)
    torch.manual_seed(0)
    return DetectorModel(cfg, None, choice.k if eventful else None, max_streams=most)


def pictures_of(video: Path, size: int, count: int) -> list[np.ndarray]:
    """The first frames (h, w, 3), their long side of ``size`` pixels."""
    shown = []
    for frame in islice(open_video(video), count):
        height, width = frame.image.shape[:2]
        scale = size / max(height, width)
        shown.append(cv2.resize(frame.image, (round(width * scale), round(height * scale))))
    return shown


class Cameras:
    """Streams that show a video, each some frames further on.

    Args:
        worker: That serves them.
        shown: The video's pictures; it runs forward and back.
        count: Of the streams; they are open, and their first frames computed.
    """

    def __init__(self, worker: StreamWorker, shown: Sequence[np.ndarray], count: int) -> None:
        self.worker, self.names = worker, [f"camera-{n}" for n in range(count)]
        self.shown = [*shown, *reversed(shown)]
        self.numbers = dict.fromkeys(self.names, 0)
        for name in self.names:
            worker.open_stream(name, TOKEN)
            self.bring(name).result()

    def bring(self, name: str):
        """A stream's next frame."""
        number = self.numbers[name]
        self.numbers[name] += 1
        place = (7 * self.names.index(name) + number) % len(self.shown)
        return self.worker.submit(name, number, self.shown[place], TOKEN)

    def saturated(self, rounds: int) -> float:
        """Frames a second of streams that always have one."""
        self._all()
        start = time.perf_counter()
        for _ in range(rounds):
            self._all()
        return rounds * len(self.names) / (time.perf_counter() - start)

    def _all(self) -> None:
        for answer in [self.bring(name) for name in self.names]:
            answer.result()

    def p90(self, rate: float, seconds: float) -> float | None:
        """Seconds until nine of ten frames have an answer; None where one was left out."""
        done: list[float] = []
        waiting, start = [], time.perf_counter()
        gap = 1 / rate / len(self.names)
        for number in range(max(int(seconds / gap), 3 * len(self.names))):
            due = start + number * gap
            time.sleep(max(due - time.perf_counter(), 0))
            answer = self.bring(self.names[number % len(self.names)])
            answer.add_done_callback(lambda _, due=due: done.append(time.perf_counter() - due))
            waiting.append(answer)
        left_out = [answer for answer in waiting if isinstance(answer.exception(), Refused)]
        return None if left_out else float(np.percentile(done, 90))

    def close(self) -> None:
        """Close the streams."""
        for name in self.names:
            self.worker.close_stream(name, TOKEN)


def held(
    worker: StreamWorker,
    shown: Sequence[np.ndarray],
    rate: float,
    capacity: float,
    most: int,
    seconds: float,
) -> tuple[tuple[int, float | None], list[tuple[int, float | None]]]:
    """The largest number of streams that is held of those played, and all of these.

    Each is a number of streams and its p90 in seconds, None where a frame was left out.
    """
    played: list[tuple[int, float | None]] = []
    best: tuple[int, float | None] = (0, None)
    number, failed = min(max(int(0.9 * capacity / rate), 1), most), most + 1
    for _ in range(_MOST_PROBES):
        cameras = Cameras(worker, shown, number)
        p90 = cameras.p90(rate, seconds)
        cameras.close()
        played.append((number, p90))
        if p90 is not None and p90 < 1 / rate:
            best = (number, p90)
            following = max(int(number * _STEP), number + 1)
        else:
            failed = number
            following = min(int(number / _STEP), number - 1)
        if not best[0] < following < failed:
            break
        number = following
    return best, played


def measure(
    name: str, eventful: bool, shown: Sequence[np.ndarray], args: argparse.Namespace
) -> tuple[list[Result], list[Played]]:
    """The rows of one detector, dense or eventful, and every number of streams behind them."""
    model = make_model(name, eventful, args.most)
    k = MODELS[name].k if eventful else None
    rows, played = [], []
    mode = "eventful" if eventful else "dense"
    with StreamWorker(model, max_open=args.most, max_batch=args.batch) as worker:
        cameras = Cameras(worker, shown, min(args.batch, args.most))
        capacity = cameras.saturated(args.rounds)
        report = worker.report()
        each = report.memory_bytes / max(report.remembered, 1) / 1e6
        cameras.close()
        for rate in args.rates:
            (streams, p90), tried = held(worker, shown, rate, capacity, args.most, args.seconds)
            ms = None if p90 is None else 1e3 * p90
            for number, seconds in tried:
                each_ms = None if seconds is None else 1e3 * seconds
                played.append(Played(f"{name} {mode}", rate, number, each_ms))
            size = MODELS[name].size
            rows.append(Result(name, size, mode, k, capacity, rate, streams, ms, each))
            print(row_text(rows[-1]), flush=True)
    return rows, played


def plot(played: Sequence[Played], path: Path) -> None:
    """Draw latency against streams, a diagram for each rate."""
    panels = []
    for rate in dict.fromkeys(each.rate for each in played):
        lines = []
        for label in dict.fromkeys(each.label for each in played):
            own = [p for p in played if (p.label, p.rate) == (label, rate) and p.p90_ms is not None]
            own.sort(key=lambda each: each.streams)
            lines.append(Line(label, [p.streams for p in own], [p.p90_ms for p in own]))
        level = (f"one frame's time, {1e3 / rate:g} ms", 1e3 / rate)
        panels.append(Panel(f"streams at {rate:g} frames/s", "p90 of an answer, ms", lines, level))
    save_panels(panels, path)


def row_text(row: Result) -> str:
    """A line of the table."""
    p90 = "-" if row.p90_ms is None else f"{row.p90_ms:.0f}"
    return (
        f"{row.model:10s}{row.size:5d} {row.mode:10s}{row.k or '-':>5}{row.frames_per_second:9.1f}"
        f"{row.rate:7g}{row.streams:9d}{p90:>8s}{row.stream_megabytes:8.0f}"
    )


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the figures if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--models", nargs="+", default=["small"], choices=list(MODELS))
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--seconds", type=float, default=1.0, help="that each number is played")
    parser.add_argument("--rounds", type=int, default=4, help="timings of what it takes at most")
    parser.add_argument("--batch", type=int, default=8, help="frames that go together, at most")
    parser.add_argument("--most", type=int, default=64, help="streams that are tried")
    parser.add_argument("--plot", type=Path, help="PNG of latency against streams")
    parser.add_argument("--frames", type=int, default=40, help="of the video")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("model      size mode          k frames/s   rate  streams  p90 ms      MB")
    rows: list[Result] = []
    played: list[Played] = []
    for name in args.models:
        shown = pictures_of(args.video, MODELS[name].size, args.frames)
        for eventful in (False, True):
            measured, behind = measure(name, eventful, shown, args)
            rows += measured
            played += behind
    if args.plot is not None:
        plot(played, args.plot)
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
