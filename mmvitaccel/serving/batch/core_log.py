"""Keeps messages of Ray's core off the terminal; they are C++ and pass by Python's logging."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_STDERR = 2


@contextmanager
def quiet_core() -> Iterator[None]:
    """Let the core of a Ray to which this process connects in the block write nothing to stderr.

    Ray Data creates its workers so that the core warns of each run, as an error, that workers may
    not start again; they do, because what they are made of is held until the end. The level that a
    user has set is kept.
    """
    if _LEVEL in os.environ:
        yield
        return
    os.environ[_LEVEL] = "fatal"
    try:
        # The core, which reads the level here, says first that it was set
        with _without_lines_on(_LEVEL):
            yield
    finally:
        del os.environ[_LEVEL]


@contextmanager
def _without_lines_on(word: str) -> Iterator[None]:
    """Hold back what is written to stderr in the block; then write it, without some lines."""
    sys.stderr.flush()
    real = os.dup(_STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, _STDERR)
            os.close(real)
            held.seek(0)
            for line in held:
                if word.encode() not in line:
                    os.write(_STDERR, line)
