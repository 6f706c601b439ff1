"""Errors while a config is read and built, all treated as mistakes in the config."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from mmvitaccel.errors.origin import frames_of_error, is_own_fault
from mmvitaccel.errors.sentence import UserError, closest, message_of, one_line
from mmvitaccel.errors.system import explain_system, open_path
from mmvitaccel.text_files import why_no_text

# Message of numpy for an mmengine data set without samples.
_NO_SAMPLE = "need at least one array to concatenate"
# What torch says of an optimizer's state that belongs to another one.
_OTHER_STATE = ("loaded state dict has a different", "loaded state dict contains a parameter group")


@contextmanager
def building(what: str) -> Iterator[None]:
    """Convert every error in the block into a :class:`UserError` about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_own_fault(error):
            raise
        raise UserError(f"{what}: {explain_system(error) or _explain(error)}") from error


def _explain(error: Exception) -> str:
    """Explain an error of a config that could not be built."""
    message = one_line(error)
    held = [f.f_locals.get("obj_cls") for f in frames_of_error(error)]
    built = [cls for cls in held if cls is not None]  # it has no type yet while it is looked up
    unknown = re.match(r"(\S+) is not in the (\S+)::(.+?) registry", message)
    if isinstance(error, KeyError) and unknown:
        return _explain_unknown_type(*unknown.groups(), error)
    if isinstance(error, TypeError) and "argument" in message:
        called = message.partition("()")[0].removesuffix(".__init__").rpartition(".")[2]
        return _explain_arguments(message, built[-1] if built else called)
    optimizer = _unknown_optimizer(error)
    if optimizer is not None:
        return _explain_unknown_type(optimizer, "mmengine", "optimizer", error)
    if isinstance(error, ModuleNotFoundError):
        return f"{message}; install it or correct custom_imports"
    if _calls_a_name(error):
        return _explain_call(error)
    message = message_of(error)
    untyped = re.match(r'(.*)`cfg` or `default_args` must contain the key "type", but got', message)
    if isinstance(error, KeyError) and untyped:
        return _explain_untyped(error)
    if message.startswith("Failed to format the config"):
        return _explain_text(error)
    path = open_path(error) if isinstance(error, (JSONDecodeError, UnicodeDecodeError)) else None
    if path is not None:
        encoded = why_no_text(Path(path).read_bytes()) if os.path.isfile(path) else None
        if encoded is not None:
            return f"{path} {encoded}"
        return (
            f"{path} cannot be read: {message}; it is damaged, cut short or of another encoding: "
            "save it whole, as UTF-8 without a byte order mark"
        )
    if isinstance(error, ValueError) and message.startswith(_OTHER_STATE):
        return (
            f"the optimizer's state in the checkpoint is of other parameters ({message}): which "
            "ones are trained, optim_wrapper.paramwise_cfg or its constructor changed; put them "
            "back, or start from the weights alone (load_from without resume)"
        )
    if message == _NO_SAMPLE:
        message = "no sample is left; correct the annotation file, filter_cfg or indices"
    if isinstance(error, KeyError) and " " not in message:
        # With spaces it is a sentence, which OpenMMLab raises as a KeyError too
        message = f"the key {message!r} is missing"
    inner = [
        f.f_locals["self"]
        for f in frames_of_error(error)
        if "self" in f.f_locals and f.f_globals.get("__name__") != "contextlib"
    ]
    place = built[-1].__name__ if built else type(inner[-1]).__name__ if inner else ""
    return message if place in message else f"{place}: {message}"


def _calls_a_name(error: Exception) -> bool:
    """Whether a pure-Python config of mmengine calls an imported name."""
    frames = frames_of_error(error)
    if not isinstance(error, RuntimeError) or len(frames) < 2:
        return False
    return type(frames[-1].f_locals.get("self")).__name__ in ("LazyObject", "LazyAttr")


def _explain_call(error: Exception) -> str:
    """Name and line of the call; mmengine's imported names are placeholders at that time."""
    config, called = frames_of_error(error)[-2:]
    name = str(called.f_locals["self"])
    return (
        f"line {config.f_lineno} calls {name}, which is only imported when the config is built; "
        f"use dict(type={name}, ...), or create the object where it is used"
    )


def _explain_text(error: Exception) -> str:
    """Explain a value that cannot be written as text into the run's copy of the config."""
    held = [getattr(f.f_locals.get("self"), "_cfg_dict", None) for f in frames_of_error(error)]
    cfg = next((content for content in held if content is not None), {})
    where, value = next(_unwritten(cfg, ""), ("a value in it", "?"))
    return (
        f"{where} is {value}, which cannot be written into the run's folder as a part of the "
        "config; give the name of an object in a module as a type, or create the object where it "
        "is used"
    )


def _unwritten(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that have no text form, such as lambdas."""
    if isinstance(value, Mapping):
        for key in value:
            yield from _unwritten(value[key], f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _unwritten(item, f"{where}.{index}")
    elif not _is_written(value):
        yield where, value


def _is_written(value: Any) -> bool:
    """Whether a value has a text form: functions and classes have their names."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return "<" not in name  # The name of a lambda, for example
    try:
        ast.parse(repr(value))
    except SyntaxError:
        return False
    return True


def _explain_unknown_type(name: str, scope: str, registry: str, error: Exception) -> str:
    """Explain an unregistered ``type``; the frame of the lookup has the registry."""
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


def _unknown_optimizer(error: Exception) -> str | None:
    """Type that mmengine's constructor of optimizers has looked up in vain, before it calls it."""
    for frame in frames_of_error(error) if isinstance(error, TypeError) else ():
        names = frame.f_locals
        if "optimizer_cls" in names and names["optimizer_cls"] is None:
            return names["self"].optimizer_cfg["type"]
    return None


def _explain_untyped(error: Exception) -> str:
    """Explain a config without a ``type``; the frame of the builder has both."""
    held = frames_of_error(error)[-1].f_locals
    cfg, registry = dict(held.get("cfg") or {}), getattr(held.get("registry"), "name", "registry")
    return f"{cfg!r} has no type, so the {registry} registry cannot build it; add a type"


def _explain_arguments(message: str, built: Any) -> str:
    """Explain an unexpected or missing argument of the built object or called function."""
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
