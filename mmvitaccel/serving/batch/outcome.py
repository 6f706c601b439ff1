"""The result file of a video, written completely or not at all, and its summary.

A result is in JSON lines. The first line names the video and the settings (``kind`` is
``video``), the next ones are of its frames (``frame``), and the last one is the summary (``end``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.serving.batch.sources import BatchVideo
from mmvitaccel.video_demo import DemoFrame, VideoDemo
from mmvitaccel.video_reader import open_video
from mmvitaccel.whole_files import whole_file

SUFFIX = ".jsonl"
_TAIL = 2**16  # bytes at the end of the file that hold the last line


@dataclass(frozen=True)
class Outcome:
    """The summary of a video.

    Attributes:
        video: Its name.
        error: Why it failed; empty if it did not.
        fault: The traceback if the error is a bug of the program; else empty.
        kept: Whether the result existed before.
        started: Whether a frame of it was computed; of a video whose worker was killed that is
            unknown, and it counts as started.
        frames: Number of frames.
        detections: Number of detections in all frames.
        milliseconds: Median time of the frames that were not computed whole; None without any.
        macs: Mean multiply-adds of a frame; None if they are unknown.
        dense_macs: Multiply-adds of a frame of the model without Eventful.
        notes: Notes on how the video ended.
    """

    video: str
    error: str = ""
    fault: str = ""
    kept: bool = False
    started: bool = True
    frames: int = 0
    detections: int = 0
    milliseconds: float | None = None
    macs: float | None = None
    dense_macs: float | None = None
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The summary in one line."""
        if self.error:
            return f"{self.video}: failed: {self.error}"
        words = [f"{self.video}: {self.frames} frames", f"{self.detections} detections"]
        if self.milliseconds is not None:
            words.append(f"median {self.milliseconds:.1f} ms per frame after the first")
        if self.macs is not None:
            words.append(f"{self.macs / self.dense_macs:.0%} of the dense multiply-adds")
        words += ["already done"] if self.kept else []
        return ", ".join(words + self.notes)


def result_path(out: Path, video: BatchVideo) -> Path:
    """Path of the result of a video."""
    return out / f"{video.name}{SUFFIX}"


def finished(out: Path, video: BatchVideo, settings: Mapping[str, Any]) -> Outcome | None:
    """The summary of an existing result; None if there is none, or if the video has changed.

    Args:
        out: Folder of the results.
        video: The video.
        settings: The settings as returned by :meth:`BatchSettings.described`.

    Raises:
        UserError: The result was made with other settings, or the file is not a result.
    """
    path = result_path(out, video)
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            end = json.loads(file.read().splitlines()[-1])
        made, identity = head["settings"], head["identity"]
        outcome = replace(Outcome(**end["outcome"]), kept=True)
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise UserError(
            f"{path} is not a result of a batch; choose another folder or remove it."
        ) from error
    for key, value in settings.items():
        if made.get(key) != value:
            raise UserError(
                f"{path} was made with other settings ({key} {made.get(key)!r}, now {value!r}); "
                "choose another folder, or remove the old results."
            )
    try:
        return outcome if identity == video.identity() else None
    except UserError:
        return outcome  # the video is gone; its result stays valid


def write_result(
    demo: VideoDemo,
    video: BatchVideo,
    out: Path,
    settings: Mapping[str, Any],
    fps: float | None,
    on_frame: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run the detector on a video and write its result.

    Args:
        demo: The detector.
        video: The video.
        out: Folder of the results.
        settings: The settings as returned by :meth:`BatchSettings.described`.
        fps: Frame rate of numbered pictures, or in place of a file's own.
        on_frame: Called after each frame.

    Raises:
        UserError: The video cannot be read, the model fails, or the result cannot be written. No
            part of a result is left behind.
    """
    identity = video.identity()
    opened = open_video(video.path, fps)
    frames: list[tuple[float | None, float | None]] = []
    found, dense = 0, None
    with whole_file(result_path(out, video)) as file:

        def write(kind: str, **values: Any) -> None:
            file.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

        head = dict(video=video.name, identity=identity, settings=dict(settings))
        write("video", **head, classes=list(demo.classes))
        for frame in demo.play(opened):
            write("frame", **_row(frame))
            on_frame()
            found, dense = found + len(frame.detections), frame.dense_macs
            frames.append((None if frame.whole else frame.milliseconds, frame.macs))
        notes = opened.notes()
        if not frames:
            raise UserError(" ".join(notes) or f"{opened.name} has no frames; give another video.")
        times = [ms for ms, _ in frames if ms is not None]
        macs = [count for _, count in frames]
        outcome = Outcome(
            video.name,
            frames=len(frames),
            detections=found,
            milliseconds=median(times) if times else None,
            macs=None if None in macs else fmean(macs),
            dense_macs=dense,
            notes=notes,
        )
        write("end", outcome=asdict(outcome))
    return outcome


def _row(frame: DemoFrame) -> dict[str, Any]:
    """The row of a frame in a result, with boxes to a hundredth of a pixel of the video."""
    row = frame.row()
    del row["dense_milliseconds"]
    found = frame.detections
    ids = found.instances_id.tolist() if "instances_id" in found else [None] * len(found)
    row["detections"] = [
        {
            "box": [round(value, 2) for value in box],
            "label": label,
            "score": round(score, 5),
            **({} if number is None else {"id": number}),
        }
        for box, label, score, number in zip(
            found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist(), ids
        )
    ]
    return row
