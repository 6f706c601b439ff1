"""A value that holds within a ``with`` block, in the thread and task that opened the block.

A context variable alone does not do for generators: while one is suspended within its block, the
value would hold for those who iterate it too, and two generators would exchange their values. Here,
a value that was read within its generator holds only there.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any, Generic, NamedTuple, TypeVar

Value = TypeVar("Value")
_PACKAGE = __name__.partition(".")[0]
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class _Generator(NamedTuple):
    """A generator's frame, by its address: a reference would keep the generator from closing."""

    frame: int
    code: CodeType
    thread: threading.Thread
    task: Any

    def is_elsewhere(self) -> bool:
        """Whether this is another thread or task, which copied the value."""
        return threading.current_thread() is not self.thread or _task() is not self.task

    def is_running(self) -> bool:
        """Whether this code is called from the generator."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if id(frame) == self.frame and frame.f_code is self.code:
                return True
            frame = frame.f_back
        return False


class _Block(Generic[Value]):
    """An open block, and the one around it."""

    def __init__(self, value: Value, around: _Block[Value] | None) -> None:
        self.value, self.around = value, around
        self.is_open = True
        self.generator = _opener()
        self.read_inside: bool | None = None
        # Blocks of generators that did not open this one, but were suspended at that time.
        self.beside = [block for block in _outwards(around) if block.is_suspended()]

    def is_suspended(self) -> bool:
        """Whether this is the block of a generator of this thread and task that is suspended."""
        generator = self.generator
        return generator is not None and not (generator.is_elsewhere() or generator.is_running())

    def holds(self) -> bool:
        """Whether the value holds for the calling code.

        Raises:
            RuntimeError: That of another suspended generator could.
        """
        if not self.is_open:
            return False
        beside = [block for block in self.beside if block.is_open]
        if any(block.generator.is_running() for block in beside):
            return False
        if self.generator is None or self.generator.is_elsewhere():
            return True
        inside = self.generator.is_running()
        if beside and not inside and not self.read_inside:
            raise RuntimeError(
                "Eventful: two generators are suspended within `with handle.stream(...)`, and the "
                "frame could belong to the stream of either; name the stream where the model is "
                "called."
            )
        if self.read_inside is None:
            self.read_inside = inside
        return inside or not self.read_inside


def _outwards(block: _Block[Value] | None) -> Iterator[_Block[Value]]:
    """A block and those around it that are open."""
    while block is not None:
        if block.is_open:
            yield block
        block = block.around


class Scope(Generic[Value]):
    """The values of nested blocks.

    Args:
        name: Name of the context variable.
    """

    def __init__(self, name: str) -> None:
        self._innermost: ContextVar[_Block[Value] | None] = ContextVar(name, default=None)

    @contextmanager
    def holding(self, value: Value) -> Iterator[None]:
        """Let a value hold within a block."""
        block = _Block(value, self._innermost.get())
        self._innermost.set(block)
        try:
            yield
        finally:
            block.is_open = False
            # Suspended generators may close their blocks in any order, and in any context
            self._innermost.set(next(_outwards(self._innermost.get()), None))

    def current(self) -> Value | None:
        """The value that holds for the calling code; None without one.

        Raises:
            RuntimeError: Several could.
        """
        for block in _outwards(self._innermost.get()):
            if block.holds():
                return block.value
        return None


def _opener() -> _Generator | None:
    """The generator that opens a block now; None if it is opened by other code.

    A generator that is itself a context manager opens it for the code around.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _module(frame) in ("contextlib", _PACKAGE):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_flags & _GENERATORS:
        return None
    if frame.f_back is None or _module(frame.f_back) == "contextlib":
        return None
    return _Generator(id(frame), frame.f_code, threading.current_thread(), _task())


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
