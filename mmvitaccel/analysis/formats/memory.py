"""Memory of a format, measured in a separate process."""

from __future__ import annotations

import ctypes
import gc
import itertools
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvitaccel.analysis.formats.compare import Comparison
from mmvitaccel.errors import UserError, sentence_of
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

_BATCHES = 3


@dataclass(frozen=True)
class Given:
    """Inputs of a process that loads a format.

    Attributes:
        config: Path of the config.
        options: Options of the command line.
        checkpoint: The weights.
        folder: Folder with the exported files.
        shapes: Shapes of the test set's batches.
        choice: Selects the weights in the checkpoint.
    """

    config: str
    options: Mapping[str, Any]
    checkpoint: str
    folder: Path
    shapes: Sequence[tuple[int, ...]]
    choice: Choice = USUAL


def memory_of(given: Given, name: str) -> int | None:
    """Growth in bytes of a new process that loads a format and runs three batches.

    The process has imported OpenMMLab's packages before. Weights that a file replaces are dropped,
    and freed memory is returned to the system before the measurement.

    Returns:
        None if the system does not provide it (it is read from ``/proc``).

    Raises:
        UserError: The process failed.
    """
    if not Path("/proc/self/statm").is_file():
        return None
    # A fork of this process could not use torch's threads; this server imports
    # everything once, never runs a model, and forks the processes that do.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(there, given, name))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = f"the process that measures its memory ended with {process.exitcode}"
    finally:
        process.join()
    if isinstance(found, str):
        raise UserError(f"{name}: {found}")
    return found


def _measure(result: Any, given: Given, name: str) -> None:
    try:
        result.send(_growth(given, name))
    except Exception as error:
        result.send(sentence_of(error) or f"{type(error).__name__}: {error}")


def _growth(given: Given, name: str) -> int:
    cfg = load_config(given.config, given.options)
    build_model(cfg)  # unpickling imports its packages
    start = _resident()
    comparison = Comparison(cfg, given.checkpoint, given.folder, 0, given.choice, given.shapes)
    comparison.add(name)
    comparison.drop_what_is_replaced()
    for batch in itertools.islice(comparison.loader, _BATCHES):
        comparison.step(comparison.rows[0], batch)
    return max(_resident() - start, 0)


def _resident() -> int:
    """Resident bytes after freed memory is returned to the system."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
