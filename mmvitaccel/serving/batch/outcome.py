"""The result of a video: a file that is there whole or not at all, and what is said of it.

A result is lines of JSON. The first says which video it is of and with which settings it was made
(``kind`` is ``video``), then comes a line for each frame (``frame``), and the last one sums up
(``end``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
_TAIL = 2**16  # bytes in which the last line is


@dataclass(frozen=True)
class Outcome:
    """What became of a video.

    Attributes:
        video: Its name.
        error: Why it failed; empty if it did not.
        fault: The traceback of an error that is the program's own; empty of any other.
        kept: Whether the result was there before.
        frames: How many there were.
        detections: In all of them.
        milliseconds: Of a frame behind the first, in the median; None if there was none.
        macs: Multiply-adds of a frame in the mean; None where they are not known.
        dense_macs: Those of the model without Eventful.
        notes: What is to be said of how the video ended.
    """

    video: str
    error: str = ""
    fault: str = ""
    kept: bool = False
    frames: int = 0
    detections: int = 0
    milliseconds: float | None = None
    macs: float | None = None
    dense_macs: float | None = None
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The outcome in a line."""
        if self.error:
            return f"{self.video}: failed: {self.error}"
        words = [f"{self.video}: {self.frames} frames", f"{self.detections} detections"]
        if self.milliseconds is not None:
            words.append(f"{self.milliseconds:.1f} ms a later frame in the median")
        if self.macs is not None:
            words.append(f"{self.macs / self.dense_macs:.0%} of the dense multiply-adds")
        words += ["was there"] if self.kept else []
        return ", ".join(words + self.notes)


def result_path(out: Path, video: BatchVideo) -> Path:
    """Where the result of a video is."""
    return out / f"{video.name}{SUFFIX}"


def finished(out: Path, video: BatchVideo, settings: Mapping[str, Any]) -> Outcome | None:
    """The outcome of a video whose result is there; None where there is none, or of another video.

    Args:
        out: Folder of the results.
        video: The video.
        settings: As :meth:`BatchSettings.described` gives them.

    Raises:
        UserError: There is one that was made with other settings, or another file in its place.
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
            f"{path} is no result of a batch; name another folder or remove it."
        ) from error
    for key, value in settings.items():
        if made.get(key) != value:
            raise UserError(
                f"{path} was made with other settings ({key} {made.get(key)!r}, now {value!r}); "
                "name another folder, or remove the old results."
            )
    try:
        return outcome if identity == video.identity() else None
    except UserError:
        return outcome  # the video itself is gone; its result stays what it was


def write_result(
    demo: VideoDemo, video: BatchVideo, out: Path, settings: Mapping[str, Any], fps: float | None
) -> Outcome:
    """Play a video to its end and write its result.

    Raises:
        UserError: The video cannot be read, the model does not serve, or the result cannot be
            written. Nothing of it is left behind.
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
            found, dense = found + len(frame.detections), frame.dense_macs
            frames.append((None if frame.whole else frame.milliseconds, frame.macs))
        notes = opened.notes()
        if not frames:
            raise UserError(" ".join(notes) or f"{opened.name} has no frames; give another.")
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
    """What a result says of a frame: boxes to a hundredth of a pixel of the video."""
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
