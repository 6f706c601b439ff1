"""Play a video through the demo into files, with progress and keys in the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from statistics import median

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmvitaccel.budget.target import Target
from mmvitaccel.errors import UserError
from mmvitaccel.video_demo.demo import VideoDemo
from mmvitaccel.video_demo.files import FinishedTable, FinishedVideo
from mmvitaccel.video_demo.frame import DemoFrame
from mmvitaccel.video_demo.keys import Keys
from mmvitaccel.video_demo.schedule import scaled
from mmvitaccel.video_reader import Video

_FPS = 25.0  # of a source that says nothing
_REMEMBERED = 10_000  # frames that the summary is of
_STEP = 1.25  # by which a key changes the budget
HELP = "keys: + a larger budget, - a smaller one, q to stop"


def record(
    demo: VideoDemo,
    video: Video,
    out: Path | None = None,
    table: Path | None = None,
    schedule: Mapping[int, Target] | None = None,
    most_frames: int | None = None,
) -> Summary:
    """Play a video to its end, to a key or to Ctrl-C; what was drawn until then is kept whole.

    Args:
        demo: The detector.
        video: The video; closed at the end.
        out: The mp4.
        table: A csv with a row for each frame.
        schedule: Budgets by the number of the frame from which they hold.
        most_frames: Stop after so many.

    Raises:
        UserError: The video cannot be read, or a file cannot be written.
        KeyboardInterrupt: Ctrl-C came before the first frame.
    """
    summary = Summary()
    with ExitStack() as opened:
        written = opened.enter_context(FinishedVideo(out, video.fps or _FPS)) if out else None
        rows = opened.enter_context(FinishedTable(table)) if table else None
        keys, progress = opened.enter_context(Keys()), opened.enter_context(_progress())
        if keys.listening and (schedule or demo.target is not None):
            progress.console.print(HELP)
        task = progress.add_task("", total=_shorter(video.length, most_frames), text="")
        frames = opened.enter_context(closing(demo.play(video, schedule)))
        try:
            for frame in islice(frames, most_frames):
                _keep(frame, written, rows)
                summary.add(frame)
                progress.update(task, advance=1, text=summary.line())
                if not _obey(demo, keys.pressed()):
                    break
        except KeyboardInterrupt:
            # reason: a live source ends by Ctrl-C, and its file is then as good as any
            if not summary.frames:
                raise
    return summary


def _keep(frame: DemoFrame, written: FinishedVideo | None, rows: FinishedTable | None) -> None:
    if written is not None:
        written.add(frame.image)
    if rows is not None:
        rows.add(frame.row())


def _obey(demo: VideoDemo, pressed: str) -> bool:
    """Do what keys say; False to stop."""
    for key in pressed:
        if key == "q":
            return False
        if key in "+-" and demo.budget is not None:
            factor = _STEP if key == "+" else 1 / _STEP
            demo.budget.set_target(scaled(demo.budget.target, factor))
    return True


class Summary:
    """What a video took, a number for each frame."""

    def __init__(self) -> None:
        self.frames = 0
        self.last: DemoFrame | None = None
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._shares: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, frame: DemoFrame) -> None:
        """Note a frame."""
        self.frames += 1
        frame.image = None  # only the numbers are kept
        self.last = frame
        if frame.milliseconds is not None and not frame.whole:
            self._times.append(frame.milliseconds)
        if frame.macs is not None and not frame.whole:
            self._shares.append(frame.macs / frame.dense_macs)

    def line(self) -> str:
        """The last frame in a line."""
        frame = self.last
        shown = "-" if frame.milliseconds is None else f"{frame.milliseconds:.0f}"
        words = [f"{shown} ms (dense {frame.dense_milliseconds:.0f})"]
        words += [] if frame.k is None else [f"k {frame.k}"]
        words += [] if frame.target is None else [f"budget {frame.target.short}"]
        return ", ".join(words)

    def text(self) -> str:
        """The video in a sentence."""
        words = [f"{self.frames} frames"]
        if self._times:
            words.append(f"{median(self._times):.1f} ms a later frame in the median")
            words.append(f"dense {self.last.dense_milliseconds:.1f} ms")
        if self._shares:
            words.append(f"{median(self._shares):.0%} of the dense multiply-adds")
        return ", ".join(words)


def _progress() -> Progress:
    return Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}")
    )


def _shorter(length: int | None, most: int | None) -> int | None:
    known = [value for value in (length, most) if value is not None]
    return min(known) if known else None


def check_played(summary: Summary, video: Video) -> None:
    """Refuse a video of which nothing was played.

    Raises:
        UserError: There was no frame.
    """
    if not summary.frames:
        raise UserError(" ".join(video.notes()) or f"{video.name} has no frames; give another.")
