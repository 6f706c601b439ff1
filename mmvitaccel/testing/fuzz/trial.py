"""Runs mutated inputs one by one and sorts what comes of each."""

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
"""What every payload would make in its folder."""
_LONGEST = 3000  # characters of an input that are kept


class Kind(Protocol):
    """A kind of input: :meth:`make` writes the input of a seed, :meth:`read` reads it."""

    def make(self, rng: random.Random) -> Any:
        """A mutated input."""

    def read(self, given: Any) -> None:
        """Read it as the tools do."""


class Hang(BaseException):
    """An input took more of the CPU than it may; no ``except Exception`` takes it."""


@dataclass
class Fault:
    """An input that came to no good end.

    Attributes:
        index: Its number; with the kind and the seed it is made again.
        what: The error with its last lines.
        given: The input.
    """

    index: int
    what: str
    given: str


@dataclass
class Outcome:
    """What became of the inputs.

    Attributes:
        read: How many were read.
        refused: How many ended in one sentence.
        faults: All others that were tried.
        untried: How many were not tried, because nothing could be.
    """

    read: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)
    untried: int = 0

    def add(self, other: Outcome) -> None:
        """Count what became of other inputs too."""
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
    """Make and read inputs.

    Args:
        kind: Of what kind.
        folder: Where a payload leaves its mark.
        seed: With the index it decides on the input.
        indices: Which inputs.
        seconds: Of the CPU, most that one may take.
        tell: Called with each index before its input is made.
    """
    outcome = Outcome()
    for index in indices:
        tell(index)
        given = kind.make(random.Random(f"{seed} {index}"))
        what = _try(kind, given, seconds)
        if (folder / MARKER).exists():
            (folder / MARKER).unlink()
            what = "code of the input was run"
        if what is None:
            outcome.read += 1
        elif what == "":
            outcome.refused += 1
        else:
            outcome.faults.append(Fault(index, what, str(given)[:_LONGEST]))
    return outcome


def by_place(faults: list[Fault]) -> Counter[str]:
    """How often each fault came, by the last lines of its traceback."""
    return Counter(fault.what for fault in faults)


def _try(kind: Kind, given: Any, seconds: float) -> str | None:
    """Read an input; None if it was read, nothing for a sentence, else what went wrong."""
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
    """Raise :class:`Hang` in the main thread; nothing where there are no such signals.

    Counted is the process's own time on the CPU: a machine that stops it, or has others to serve,
    makes no hang.
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
