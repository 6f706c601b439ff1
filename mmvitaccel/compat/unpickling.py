"""What a checkpoint may ask for while it is read, and a reader that allows no more.

Unpickling calls whatever a file names. mmengine's Runner needs a few names beyond tensors: the
:class:`~mmengine.logging.HistoryBuffer` of the logged values with the numpy arrays inside it, and
``builtins.getattr``, by which pickle writes a method down. None of them may be made to do harm
with any argument, so each is either a class without side effects or a function of this module.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

# Pickle protocol 2, which torch.save writes, uses the names of Python 2.
_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_STATISTICS = ("min", "max", "current", "mean")
_NUMBERS = "?bBhHiIlLqQefdgFD"  # numpy's one-letter codes: bool, integers, floats, complex
_TENSOR_FUNCTIONS = (
    torch._utils._rebuild_tensor,
    torch._utils._rebuild_tensor_v2,
    torch._utils._rebuild_parameter,
    torch._utils._rebuild_parameter_with_state,
    torch._tensor._rebuild_from_type_v2,
    torch.serialization._get_layout,
)
# Containers and numbers; pickle's protocol 2 writes bytes down as a call of `encode`.
_PLAIN = {"collections.OrderedDict", "builtins.set", "builtins.complex", "_codecs.encode"}
_TENSOR_CLASSES = (OrderedDict, torch.Size, torch.device, torch.Tensor, torch.nn.Parameter)


def full_name(value: Any) -> str:
    """Return the dotted name by which a pickle refers to a function or class."""
    return f"{value.__module__}.{value.__qualname__}"


@lru_cache(maxsize=1)
def runner_globals() -> tuple[Callable[..., Any], ...]:
    """Return what checkpoints of mmengine's Runner and of training scripts need beyond tensors.

    Each carries in ``__module__`` and ``__qualname__`` the name that it answers to, which is how
    ``torch.serialization.add_safe_globals`` files it.
    """
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    return (
        HistoryBuffer,
        _named(_history_method, "builtins", "getattr"),
        # numpy 2 moved what numpy 1 wrote down as numpy.core
        *(_named(reconstruct, f"numpy.{c}.multiarray", "_reconstruct") for c in ("core", "_core")),
        *(_named(scalar, f"numpy.{c}.multiarray", "scalar") for c in ("core", "_core")),
        np.ndarray,
        _named(_plain_dtype, "numpy", "dtype"),
        *dict.fromkeys(type(np.dtype(code)) for code in (*_NUMBERS, "U", "S")),
        # DeiT-style training scripts, EfficientViT's among them, save their arguments.
        type("Namespace", (SimpleNamespace,), {"__module__": "argparse"}),
    )


class SafeUnpickler(pickle.Unpickler):
    """Reads tensors, numbers, containers and :func:`runner_globals`, and refuses the rest.

    It serves where ``weights_only=True`` cannot: on torch < 2.6, which neither takes further
    classes reliably nor keeps TorchScript out, and for pickles that torch did not write.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what the file names if it is allowed.

        Args:
            module: Dotted module name as written in the file.
            name: Name inside the module.

        Raises:
            pickle.UnpicklingError: The name is not in the list.
        """
        asked_for = f"{_PYTHON_2_MODULES.get(module, module)}.{name}"
        try:
            return _allowed()[asked_for]
        except KeyError:
            refuse(asked_for)


class ArrayUnpickler(SafeUnpickler):
    """Reads numpy's arrays and numbers in plain containers, which detectron2's ``.pkl`` are."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what the file names if it is numpy's, or a container of Python's own.

        Args:
            module: Dotted module name as written in the file.
            name: Name inside the module.

        Raises:
            pickle.UnpicklingError: It is anything else.
        """
        asked_for = f"{_PYTHON_2_MODULES.get(module, module)}.{name}"
        if module.partition(".")[0] != "numpy" and asked_for not in _PLAIN:
            refuse(asked_for)
        return super().find_class(module, name)


def refuse(name: str) -> NoReturn:
    """Raise the error that torch's own check raises, with the name after ``GLOBAL``.

    Args:
        name: Dotted name that a file asked for.
    """
    raise pickle.UnpicklingError(f"GLOBAL {name} is not in the list of what a checkpoint may use")


@lru_cache(maxsize=1)
def _allowed() -> dict[str, Any]:
    """Everything that :class:`SafeUnpickler` answers for, by name."""
    functions = (*_TENSOR_FUNCTIONS, _named(codecs.encode, "_codecs", "encode"))
    classes = (*_TENSOR_CLASSES, set, bytearray, complex)
    allowed = {full_name(v): v for v in (*functions, *classes, *runner_globals())}
    allowed |= {str(v): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
    return {
        name: value if isinstance(value, (type, torch.dtype)) else _Call(value)
        for name, value in allowed.items()
    }


class _Call:
    """A function that a pickle may call but, unlike a bare one, not change.

    Args:
        function: What is called.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> NoReturn:
        # reason: pickle's BUILD sets attributes of any object that is on its stack.
        raise pickle.UnpicklingError("a checkpoint may not change the functions that it uses")


def _named(function: Callable[..., Any], module: str, name: str) -> Callable[..., Any]:
    """Wrap a function so that it answers to another name."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, call.__name__, call.__qualname__ = module, name, name
    return call


def _history_method(owner: Any, name: str) -> Callable[..., Any]:
    """What ``builtins.getattr`` may do: give HistoryBuffer's own statistics."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        refuse("builtins.getattr")
    return getattr(HistoryBuffer, name)


def _plain_dtype(*args: Any) -> np.dtype:
    """What ``numpy.dtype`` may do: name a type whose elements are plain bytes."""
    made = np.dtype(*args)
    if made.hasobject:
        refuse(f"numpy.dtype({made.str!r})")
    return made
