"""Errors while a configuration is read and built: any of them is one of the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmvitaccel.errors.origin import frames_of_error, is_own_fault
from mmvitaccel.errors.sentence import UserError, closest, message_of, one_line
from mmvitaccel.errors.system import explain_system

# What numpy says of a data set of mmengine's that has no sample.
_NO_SAMPLE = "need at least one array to concatenate"


@contextmanager
def building(what: str) -> Iterator[None]:
    """Turn every error inside into a :class:`UserError` about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_own_fault(error):
            raise
        raise UserError(f"{what}: {explain_system(error) or _explain(error)}") from error


def _explain(error: Exception) -> str:
    """Say what is wrong with a configuration that could not be built."""
    message = one_line(error)
    held = [f.f_locals.get("obj_cls") for f in frames_of_error(error)]
    built = [cls for cls in held if cls is not None]  # it has none yet while it is looked up
    unknown = re.match(r"(\S+) is not in the (\S+)::(.+?) registry", message)
    if isinstance(error, KeyError) and unknown:
        return _explain_unknown_type(*unknown.groups(), error)
    if isinstance(error, TypeError) and "argument" in message:
        called = message.partition("()")[0].removesuffix(".__init__").rpartition(".")[2]
        return _explain_arguments(message, built[-1] if built else called)
    if isinstance(error, ModuleNotFoundError):
        return f"{message}; install it or correct custom_imports"
    message = message_of(error)
    if message == _NO_SAMPLE:
        message = "no sample is left; correct the annotation file, filter_cfg or indices"
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
