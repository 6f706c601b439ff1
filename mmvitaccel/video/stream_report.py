"""Recognition of a stream with printed results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from mmvitaccel.errors import UserError
from mmvitaccel.text_files import read_lines
from mmvitaccel.video.clip_steps import ClipSettings, StepMaker
from mmvitaccel.video.stream_recognition import StepResult, StreamRun
from mmvitaccel.video_reader import Video


def recognise(
    model: nn.Module,
    source: Video,
    settings: ClipSettings,
    names: Sequence[Sequence[str]] = (),
    max_steps: int | None = None,
    count: bool = True,
    against_dense: bool = True,
) -> StreamReport:
    """Process a stream to its end and print the result of each step.

    Args:
        model: A recognizer with a ViViT, in evaluation mode, on its device.
        source: The video, which is closed at the end.
        settings: Settings of the clips.
        names: Class names of each classifier.
        max_steps: Stop after this many steps; None for the end of the stream.
        count: Count multiply-adds, in a second pass over each step.
        against_dense: Also time the model without its method.

    Returns:
        The report, with every step's result.

    Raises:
        UserError: The model has no ViViT, the names do not match its classes, or there are fewer
            frames than one step needs.
    """
    frames = getattr(getattr(model, "backbone", None), "tubelet_size", (1,))[0]
    window = settings.clip_len // frames
    run = StreamRun(model, window, count, against_dense)
    maker = StepMaker(settings, frames, source.fps)
    report = StreamReport(names, window, source.live)
    report.head()
    with source:
        for frame in source:
            step = maker.add(frame)
            if step is not None:
                report.add(run.step(step), frame.seconds, source.behind)
                if len(report.results) == max_steps:
                    break
    notes = source.notes()
    if not report.results:
        short = f"{source.name} has {source.given} frames, fewer than the {frames} of one step."
        raise UserError(" ".join(notes) or short)
    report.summary(run.timed.scores())
    for note in notes:
        print(f"warning: {note}")
    return report


class StreamReport:
    """Prints a line for each step and a summary.

    Args:
        names: Names of the classes of each classifier, in the head's order; empty for numbers.
        window: Steps of a clip.
        live: Whether to print the delay of each step from a live source.
    """

    def __init__(self, names: Sequence[Sequence[str]], window: int, live: bool = False) -> None:
        self.names = names
        self.window = window
        self.live = live
        self.results: list[StepResult] = []
        self._label: str | None = None

    def head(self) -> None:
        """Print the names of the columns."""
        behind = f" {'behind':>8}" if self.live else ""
        print(
            f"{'step':>5} {'seconds':>8}{behind} {'ms':>9} {'dense ms':>9} {'multiply-adds':>15}  "
            "label"
        )

    def add(self, result: StepResult, seconds: float | None, behind: float | None = None) -> None:
        """Print a step; ``*`` marks a label that differs from the step before.

        Args:
            result: Result of the step.
            seconds: Time of its last frame in the video; None if unknown.
            behind: Seconds that this frame of a live source has waited.
        """
        label, shown = None, f"({len(self.results) + 1} of {self.window} steps)"
        if result.scores is not None:
            label, confidence = self.label(result.scores)
            shown = f"{'*' if label != self._label else ' '} {label} {confidence:.2f}"
        waited = f" {_or_dash(behind, 2):>8}" if self.live else ""
        when = f"{_or_dash(seconds, 2):>8}{waited}"
        print(
            f"{result.number:>5} {when} {result.ms:>9.1f} {_or_dash(result.dense_ms):>9} "
            f"{_macs(result.macs):>15}  {shown}",
            flush=True,
        )
        self._label = label
        self.results.append(result)

    def label(self, scores: dict[str, Tensor]) -> tuple[str, float]:
        """The best class of each classifier, by name, and the product of their probabilities.

        Raises:
            UserError: The number of names does not match the classes.
        """
        words, confidence = [], 1.0
        for position, value in enumerate(scores.values()):
            best = int(value.argmax())
            confidence *= float(value[best])
            words.append(self._name(position, best, len(value)))
        return " ".join(words), confidence

    def summary(self, final: dict[str, Tensor]) -> None:
        """Print the times of the first and of later steps.

        Args:
            final: Scores of the last window, for a stream that was too short to fill one.
        """
        first, later = self.results[0], self.results[1:]
        if len(self.results) < self.window:
            label, confidence = self.label(final)
            print(
                f"label {label} {confidence:.2f}, of {len(self.results)} steps; the last was "
                f"repeated to fill the window of {self.window}"
            )
        print(f"first step {first.ms:.1f} ms, {_macs(first.macs)} multiply-adds")
        if not later:
            return
        ms = statistics.median(result.ms for result in later)
        macs = None if first.macs is None else statistics.mean(r.macs for r in later)
        print(f"later steps {ms:.1f} ms (median), {_macs(macs)} multiply-adds (mean)")
        if first.dense_ms is not None:
            dense = statistics.median(result.dense_ms for result in later)
            print(
                f"dense model {dense:.1f} ms (median) in the same run: {dense / ms:.2f} x the time"
            )

    def _name(self, position: int, best: int, count: int) -> str:
        if not self.names:
            return str(best)
        if position >= len(self.names) or len(self.names[position]) != count:
            found = ", ".join(str(len(names)) for names in self.names)
            raise UserError(
                f"--labels: the files have {found} names, but classifier {position + 1} has "
                f"{count} classes; give a file with as many lines for each classifier."
            )
        return self.names[position][best]


def read_names(path: Path) -> list[str]:
    """Read class names, one per line.

    Raises:
        UserError: The file does not exist or is not text.
    """
    if not path.is_file():
        raise UserError(f"--labels: {path} does not exist; give a text file, a class a line.")
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise UserError(f"--labels: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _macs(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3f} G"


def _or_dash(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
