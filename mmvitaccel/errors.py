"""Mistakes in what a user gave, said in one sentence; everything else keeps its traceback.

While a configuration is read and built, any error is one of the configuration. Once the model
runs, only those are that a user can mend: shapes that do not fit together, files that are not
there, and what this package refuses. ``MMVITACCEL_TRACEBACK=1`` shows the traceback of these too.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn

EXIT_STATUS = 2
_TRACEBACK = "MMVITACCEL_TRACEBACK"
_SHAPES_DIFFER = re.compile(
    r"expected .*(input|channels|size)|must match|size mismatch|shapes cannot be multiplied"
    r"|normalized_shape|is invalid for input of size|Kernel size can't be greater|too small"
    r"|running_mean should contain"
)


class UserError(Exception):
    """One sentence for the user: what is wrong, where, and what to do."""


def closest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` for a misspelt name, or nothing."""
    found = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


@contextmanager
def building(what: str) -> Iterator[None]:
    """Turn every error inside into a :class:`UserError` about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {_explain(error)}") from error


@contextmanager
def running(model: nn.Module, what: str, every_error: bool = False) -> Iterator[None]:
    """Turn those errors inside that a user can mend into a :class:`UserError`.

    Args:
        model: What runs inside; the module at fault is named.
        what: Begins the sentence.
        every_error: Take all errors for the user's: for a run that only tries the model.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _explain_run(error, model)
        if sentence is None and every_error:
            sentence = f"{_place(_frames(error), model)}{_message(error)}"
        if sentence is None:
            raise
        raise UserError(f"{what}: {sentence}") from error


def one_sentence_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Let a tool's ``main`` end a :class:`UserError` as a line on stderr and exit status 2."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            if os.environ.get(_TRACEBACK):
                traceback.print_exc()
            rank = os.environ.get("RANK", "0")
            where = "" if rank == "0" else f" (rank {rank})"
            sys.stdout.flush()
            print(f"error{where}: {_flat(error)}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_STATUS) from None

    return run


def _flat(error: BaseException) -> str:
    """An error's message on one line; KeyError's without its quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def _message(error: BaseException) -> str:
    """An error's message, or what there is in its place."""
    message = _flat(error)
    if message:
        return message
    if isinstance(error, AssertionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{last.line} does not hold (in {last.name})"
    return type(error).__name__


def _frames(error: BaseException) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _explain(error: Exception) -> str:
    """Say what is wrong with a configuration that could not be built."""
    message = _flat(error)
    built = [f.f_locals["obj_cls"] for f in _frames(error) if "obj_cls" in f.f_locals]
    unknown = re.match(r"(\S+) is not in the (\S+)::(.+?) registry", message)
    if isinstance(error, KeyError) and unknown:
        return _explain_unknown_type(*unknown.groups(), error)
    if isinstance(error, TypeError) and "argument" in message:
        called = message.partition("()")[0].removesuffix(".__init__").rpartition(".")[2]
        return _explain_arguments(message, built[-1] if built else called)
    if isinstance(error, ModuleNotFoundError):
        return f"{message}; install it or correct custom_imports"
    message = _message(error)
    if isinstance(error, KeyError):
        message = f"the key {message!r} is missing"
    inner = [f.f_locals["self"] for f in _frames(error) if "self" in f.f_locals]
    place = built[-1].__name__ if built else type(inner[-1]).__name__ if inner else ""
    return message if place in message else f"{place}: {message}"


def _explain_unknown_type(name: str, scope: str, registry: str, error: Exception) -> str:
    """A ``type`` that no registry has; the frame that looked for it holds the registry."""
    held = [f.f_locals.get("registry") for f in _frames(error)]
    names: list[str] = []
    for found in [r for r in held if hasattr(r, "module_dict")]:
        while found is not None:
            names += found.module_dict
            names += [f"{c.scope}.{n}" for c in found.children.values() for n in c.module_dict]
            found = found.parent
    return (
        f"type {name!r} is not in {scope}'s {registry} registry; correct the name or import the "
        f"module that registers it through custom_imports{closest(name, names)}"
    )


def _explain_arguments(message: str, built: Any) -> str:
    """What was built, or the name of what was called, got an argument too many or too few."""
    name = getattr(built, "__name__", str(built))
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", message)
    if unexpected:
        known: set[str] = set()
        for part in inspect.getmro(built) if inspect.isclass(built) else (built,):
            if callable(part) and part is not object:
                known |= set(inspect.signature(part).parameters)
        hint = closest(unexpected[1], known - {"self", "args", "kwargs"})
        return f"{name} has no argument {unexpected[1]!r}; remove or correct it{hint}"
    missing = re.search(r"missing \d+ required .*?: (.*)", message)
    if missing:
        return f"{name} needs {missing[1]}; give it in the config"
    return f"{name}: {message}"


def _explain_run(error: Exception, model: nn.Module) -> str | None:
    """Say what a user can mend in an error of a running model; None for anything else."""
    message = _message(error)
    frames = _frames(error)
    worker = _explain_worker(message)
    if worker is not None:
        return worker
    if isinstance(error, (RuntimeError, ValueError, AssertionError)):
        place = _place(frames, model)
        if _SHAPES_DIFFER.search(message) or (place and isinstance(error, AssertionError)):
            return f"{place}{message}; correct the channels or the input's size"
        if frames and frames[-1].f_globals.get("__name__", "").startswith("mmvitaccel."):
            return message
    if isinstance(error, FileNotFoundError):
        return re.sub(r".*FileNotFoundError: ", "", message)
    return None


def _explain_worker(message: str) -> str | None:
    """A data loader's worker sends its whole traceback as the message: the sentence in it."""
    caught = re.match(r"Caught (\w+) in DataLoader worker process", message)
    if caught is None:
        return None
    last_file = re.findall(r'File "([^"]+)", line', message)[-1:]
    if not any(f"{os.sep}mmvitaccel{os.sep}" in file for file in last_file):
        return None
    return message.rpartition(f"{caught[1]}: ")[2] or None


def _place(frames: list[FrameType], model: nn.Module) -> str:
    """The model's innermost module among the frames of an error, by its dotted name."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if names.get(id(module)):
            return f"in {names[id(module)]} ({type(module).__name__}): "
    return ""
