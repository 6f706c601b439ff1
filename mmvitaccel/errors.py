"""Mistakes in what a user gave, said in one sentence; everything else keeps its traceback.

While a configuration is read and built, any error is one of the configuration. Once the model
runs, only those are that a user can mend: shapes that do not fit together, files, devices and
disks, and what a ``raise`` of this package refuses. ``MMVITACCEL_TRACEBACK=1`` shows the traceback
of these too.
"""

from __future__ import annotations

import difflib
import dis
import errno
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
# Characters; a path has rarely as many as the first, a sentence as the second.
_LONGEST_WORD = 300
_LONGEST = 1500
_TRACEBACK = "MMVITACCEL_TRACEBACK"
_SHAPES_DIFFER = re.compile(
    r"expected .*(input|channels|size)|must match|size mismatch|shapes cannot be multiplied"
    r"|normalized_shape|is invalid for input of size|Kernel size can't be greater|too small"
    r"|running_mean should contain|Expected more than 1 value per channel"
)


# What the system says of a user's files and disks; a broken pipe or a bad descriptor is none.
_OF_THE_SYSTEM = {
    errno.ENOENT: "correct the path",
    errno.EACCES: "correct the permissions or give another path",
    errno.EPERM: "correct the permissions or give another path",
    errno.EROFS: "give a path on a disk that can be written",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "give a path below a folder",
    errno.EEXIST: "give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "correct the link",
    errno.ENOSPC: "free space on the disk or give another path",
    errno.EDQUOT: "free space within the quota or give another path",
    errno.EFBIG: "give a path on a disk that takes files of this size",
    errno.EIO: "check the disk",
}
_OF_THE_DEVICE = (
    (
        r"CUDA out of memory|CUDA error: out of memory",
        "the GPU has not memory enough; set a smaller batch size or image",
    ),
    (
        r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|invalid device ordinal"
        r"|torch\.cuda\.is_available\(\) is False|ProcessGroupNCCL is only supported with GPUs",
        "CUDA was asked for, and there is no such device here; run on the CPU or correct the "
        "device and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"PytorchStreamWriter failed|inline_container.*write failed",
        "a checkpoint could not be written whole; free space on the disk or give another path",
    ),
)


class UserError(Exception):
    """One sentence for the user: what is wrong, where, and what to do.

    Args:
        sentence: What is overlong in it, such as a value that is repeated, loses its middle.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(shorten(sentence))


def shorten(sentence: str) -> str:
    """A message without the middle of overlong words, and of itself if it is overlong then."""
    words = re.sub(r"\S+", lambda word: _cut(word[0], _LONGEST_WORD), sentence)
    return _cut(words, _LONGEST)


def _cut(text: str, most: int) -> str:
    """A text without its middle; the end, which says what to do, is kept as the beginning is."""
    left = len(text) - most
    return f"{text[: most // 2]}[... {left} more ...]{text[-most // 2 :]}" if left > 0 else text


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
        if _is_own_fault(error):
            raise
        raise UserError(f"{what}: {explain_system(error) or _explain(error)}") from error


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
            sentence = f"{_place(frames_of_error(error), model)}{_message(error)}"
        if sentence is None:
            raise
        raise UserError(f"{what}: {sentence}") from error


def one_sentence_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Let a tool's ``main`` end a :class:`UserError` as a line on stderr and exit status 2."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            if os.environ.get(_TRACEBACK):
                traceback.print_exc()
            rank = os.environ.get("RANK", "0")
            where = "" if rank == "0" else f" (rank {rank})"
            sys.stdout.flush()
            print(f"error{where}: {sentence}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_STATUS) from None

    return run


def sentence_of(error: BaseException) -> str | None:
    """What a tool says of an error at its end; None for a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted from the keyboard; what was written so far is kept."
    known = isinstance(error, UserError) or is_refusal(error)
    sentence = one_line(error) if known else explain_system(error)
    return sentence and shorten(sentence)


def explain_system(error: BaseException) -> str | None:
    """Say what is wrong with a file, a disk or a device; None for an error of another kind."""
    message = one_line(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        path = error.filename if error.filename is not None else _open_path(error)
        place = f"{path}: " if path is not None else ""
        reason = (error.strerror or message).lower()
        return f"{place}{reason}; {_OF_THE_SYSTEM[error.errno]}."
    if isinstance(error, (RuntimeError, AssertionError, ValueError)):
        for pattern, advice in _OF_THE_DEVICE:
            if re.search(pattern, message):
                return f"{advice} ({message[:160]})."
    return None


def _open_path(error: BaseException) -> str | None:
    """The path that was written when a write failed: the system does not say it again."""
    for frame in reversed(frames_of_error(error)):
        for name in ("filepath", "filename", "file_path", "path", "out_file"):
            value = frame.f_locals.get(name)
            if isinstance(value, (str, os.PathLike)):
                return str(value)
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether a ``raise`` of this package, which refuses an input, made an error.

    An error that torch or Python raise inside a function of this package is none.
    """
    if not isinstance(error, (RuntimeError, ValueError, FileNotFoundError)):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not _is_own(last.tb_frame):
        return False
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is of this package, by the name of its module, wherever it lies."""
    return frame.f_globals.get("__name__", "").partition(".")[0] == "mmvitaccel"


def _is_own_fault(error: Exception) -> bool:
    """Whether an error can be nothing but a fault of this package's code."""
    frames = frames_of_error(error)
    return isinstance(error, NameError) and bool(frames) and _is_own(frames[-1])


def one_line(error: BaseException) -> str:
    """An error's message on one line; KeyError's without its quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def _message(error: BaseException) -> str:
    """An error's message, or what there is in its place."""
    message = one_line(error)
    if message:
        return message
    if isinstance(error, AssertionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{last.line} does not hold (in {last.name})"
    return type(error).__name__


def frames_of_error(error: BaseException) -> list[FrameType]:
    """The frames of an error's traceback, the one that raised it last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _explain(error: Exception) -> str:
    """Say what is wrong with a configuration that could not be built."""
    message = one_line(error)
    built = [f.f_locals["obj_cls"] for f in frames_of_error(error) if "obj_cls" in f.f_locals]
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
    inner = [f.f_locals["self"] for f in frames_of_error(error) if "self" in f.f_locals]
    place = built[-1].__name__ if built else type(inner[-1]).__name__ if inner else ""
    return message if place in message else f"{place}: {message}"


def _explain_unknown_type(name: str, scope: str, registry: str, error: Exception) -> str:
    """A ``type`` that no registry has; the frame that looked for it holds the registry."""
    held = [f.f_locals.get("registry") for f in frames_of_error(error)]
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
    frames = frames_of_error(error)
    system = explain_system(error)
    if system is not None:
        return system
    if isinstance(error, (RuntimeError, ValueError, AssertionError)):
        place = _place(frames, model)
        if _SHAPES_DIFFER.search(message) or (place and isinstance(error, AssertionError)):
            return f"{place}{message}; correct the channels or the input's size"
    if is_refusal(error) or isinstance(error, FileNotFoundError):
        return message
    return None


def _place(frames: list[FrameType], model: nn.Module) -> str:
    """The model's innermost module among the frames of an error, by its dotted name."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if names.get(id(module)):
            return f"in {names[id(module)]} ({type(module).__name__}): "
    return ""
