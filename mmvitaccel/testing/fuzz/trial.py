"""Runs mutated inputs one by one and classifies the outcomes."""

from __future__ import annotations

import contextlib
import io
import random
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmvitaccel.errors import one_line, sentence_of

MARKER = "code-was-run"
"""Name of the file that every payload would create in its folder."""
_LONGEST = 3000  # characters of an input that are recorded


class Kind(Protocol):
    """Protocol of a kind of input."""

    def make(self, rng: random.Random) -> Any:
        """Create a mutated input."""

    def read(self, given: Any) -> None:
        """Read an input as the tools do."""


class Hang(BaseException):
    """Raised if an input takes too much CPU time; ``except Exception`` does not catch it."""


@dataclass
class Fault:
    """An input that was neither read nor refused with a sentence.

    Attributes:
        index: Index of the input; with the kind and the seed, it reproduces the input.
        what: The error and the last frames of its traceback.
        given: The input as text.
    """

    index: int
    what: str
    given: str


@dataclass
class Outcome:
    """Outcomes of a run.

    Attributes:
        read: Number of inputs that were read.
        refused: Number of inputs that were refused with one sentence.
        faults: All other inputs that were tried.
        untried: Number of inputs that could not be tried.
    """

    read: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)
    untried: int = 0

    def add(self, other: Outcome) -> None:
        """Add the outcomes of another run."""
        self.read += other.read
        self.refused += other.refused
        self.faults += other.faults
        self.untried += other.untried


def run(
    kind: Kind,
    folder: Path,
    seed: int,
    indices: range,
    seconds: float = 30.0,
    tell: Callable[[int], None] = lambda index: None,
) -> Outcome:
    """Create and read inputs.

    Args:
        kind: Kind of the inputs.
        folder: Folder in which a payload would create the marker file.
        seed: Seed; together with the index it determines an input.
        indices: Indices of the inputs.
        seconds: Maximum CPU time per input.
        tell: Called with each index before its input is created.
    """
    outcome = Outcome()
    for index in indices:
        tell(index)
        given = kind.make(random.Random(f"{seed} {index}"))
        what = _try(kind, given, seconds)
        if (folder / MARKER).exists():
            (folder / MARKER).unlink()
            what = "code in the input was executed"
        if what is None:
            outcome.read += 1
        elif what == "":
            outcome.refused += 1
        else:
            outcome.faults.append(Fault(index, what, str(given)[:_LONGEST]))
    return outcome


def by_place(faults: list[Fault]) -> Counter[str]:
    """Count the faults by their error and the last frames of its traceback."""
    return Counter(fault.what for fault in faults)


def _try(kind: Kind, given: Any, seconds: float) -> str | None:
    """Read an input; return None if it was read, "" if it was refused, else the fault."""
    try:
        with _quiet(), _limit(seconds):
            kind.read(given)
    except (Exception, Hang) as error:
        sentence = sentence_of(error)
        if sentence is None:
            return _describe(error)
        return "" if sentence else f"an empty sentence of {_describe(error)}"
    return None


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "mmvitaccel" in frame.filename]
    last = [*own[-3:], *frames[-1:]]
    places = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in last)
    return f"{type(error).__name__}: {one_line(error)[:160]} ({places})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` after some CPU time; only in the main thread and not on Windows.

    The limit is in CPU time, so a busy machine does not cause a hang.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Hang(f"not done after {seconds:g} s of the CPU")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
