"""Runs the demo on a video and writes files, with progress and keys in the terminal."""

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

_FPS = 25.0  # for a source without a frame rate
_REMEMBERED = 10_000  # latest frames that the summary covers
_STEP = 1.25  # factor by which a key changes the budget
HELP = "keys: + a larger budget, - a smaller one, q to stop"


def record(
    demo: VideoDemo,
    video: Video,
    out: Path | None = None,
    table: Path | None = None,
    schedule: Mapping[int, Target] | None = None,
    most_frames: int | None = None,
) -> Summary:
    """Run on a video until its end, the key ``q`` or Ctrl-C; the files are complete up to there.

    Args:
        demo: The detector.
        video: The video; closed at the end.
        out: Path of the mp4.
        table: Path of a csv with a row for each frame.
        schedule: Budgets by the number of the frame from which they hold.
        most_frames: Stop after so many frames.

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
            # Ctrl-C is the regular way to end a live source
            if not summary.frames:
                raise
    return summary


def _keep(frame: DemoFrame, written: FinishedVideo | None, rows: FinishedTable | None) -> None:
    if written is not None:
        written.add(frame.image)
    if rows is not None:
        rows.add(frame.row())


def _obey(demo: VideoDemo, pressed: str) -> bool:
    """Handle the pressed keys; False to stop."""
    for key in pressed:
        if key == "q":
            return False
        if key in "+-" and demo.budget is not None:
            factor = _STEP if key == "+" else 1 / _STEP
            demo.budget.set_target(scaled(demo.budget.target, factor))
    return True


class Summary:
    """Times and multiply-adds of a video's frames."""

    def __init__(self) -> None:
        self.frames = 0
        self.last: DemoFrame | None = None
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._shares: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, frame: DemoFrame) -> None:
        """Add a frame."""
        self.frames += 1
        frame.image = None  # only the numbers are kept
        self.last = frame
        if frame.milliseconds is not None and not frame.whole:
            self._times.append(frame.milliseconds)
        if frame.macs is not None and not frame.whole:
            self._shares.append(frame.macs / frame.dense_macs)

    def line(self) -> str:
        """The last frame in one line."""
        frame = self.last
        shown = "-" if frame.milliseconds is None else f"{frame.milliseconds:.0f}"
        words = [f"{shown} ms (dense {frame.dense_milliseconds:.0f})"]
        words += [] if frame.k is None else [f"k {frame.k}"]
        words += [] if frame.target is None else [f"budget {frame.target.short}"]
        return ", ".join(words)

    def text(self) -> str:
        """The video in one sentence."""
        words = [f"{self.frames} frames"]
        if self._times:
            words.append(f"median {median(self._times):.1f} ms per frame after the first")
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
    """Check that a video had frames.

    Raises:
        UserError: It had none.
    """
    if not summary.frames:
        raise UserError(
            " ".join(video.notes()) or f"{video.name} has no frames; give another video."
        )
