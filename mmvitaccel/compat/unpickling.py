"""The names that a checkpoint may use, and an unpickler that allows no others.

Unpickling calls whatever a file names. mmengine's Runner needs a few names beyond tensors: the
:class:`~mmengine.logging.HistoryBuffer` of the logged values with the numpy arrays inside it, and
``builtins.getattr``, with which pickle stores a method. Each allowed name must be harmless with any
argument. It is therefore either a class without side effects or a replacement from this module.
numpy's own classes are not harmless: a file can modify a dtype until its array reads memory outside
its buffer, and it can request an array of any size.
"""

from __future__ import annotations

import math
import pickle
import re
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
_TENSOR_FUNCTIONS = (
    torch._utils._rebuild_tensor,
    torch._utils._rebuild_tensor_v2,
    torch._utils._rebuild_parameter,
    torch._utils._rebuild_parameter_with_state,
    torch._tensor._rebuild_from_type_v2,
    torch.serialization._get_layout,
)
_CONTAINERS = (OrderedDict, set, bytearray, complex)
_TENSOR_CLASSES = (torch.Size, torch.device, torch.Tensor, torch.nn.Parameter)


def full_name(value: Any) -> str:
    """Return the dotted name by which a pickle refers to a function or class."""
    return f"{value.__module__}.{value.__qualname__}"


def refuse(name: str) -> NoReturn:
    """Raise the same error as torch's own check, with the name after ``GLOBAL``.

    Args:
        name: Dotted name in the file.
    """
    raise pickle.UnpicklingError(f"GLOBAL {name} is not in the list of what a checkpoint may use")


class PlainDtype:
    """Replaces ``numpy.dtype``: bool, numbers and strings of fixed length, in either byte order.

    Args:
        code: numpy's, such as ``f4``.
        align: Ignored; it has no meaning for a plain type.
        copy: Ignored.
    """

    __slots__ = ("dtype",)
    __module__, __qualname__ = "numpy", "dtype"

    def __init__(self, code: str, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU][1-9]\d{0,3}", code):
            refuse(f"numpy.dtype({code!r})")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        """Set the byte order, the only state of a plain type."""
        self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray(np.ndarray):
    """Replaces ``numpy.ndarray``: filled from bytes that match its shape exactly."""

    __module__, __qualname__ = "numpy", "ndarray"

    def __new__(cls, *args: object) -> NoReturn:
        """Refuse direct construction, whose size the file could choose freely."""
        refuse("numpy.ndarray itself")

    def __setstate__(self, state: tuple) -> None:
        """Set shape, type and bytes."""
        version, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        dtype = _type_of(data, dtype, shape)
        super().__setstate__((version, tuple(shape), dtype, bool(fortran), data))

    def __reduce_ex__(self, protocol: int) -> Any:
        """Pickle as numpy's own array."""
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _type_of(data: object, dtype: object, shape: tuple[int, ...]) -> np.dtype:
    """Return the dtype, checked against shape and number of bytes.

    Raises:
        pickle.UnpicklingError: The bytes do not fill the array exactly, or are not bytes.
    """
    if isinstance(dtype, np.dtype):  # a script has added numpy's own to torch's allow list
        dtype = PlainDtype(dtype.str[1:])
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, PlainDtype):
        raise pickle.UnpicklingError("an array that is not made of bytes and a plain type")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {tuple(shape)} in {len(data)} bytes")
    return dtype.dtype


def _new_array(kind: type, *_: object) -> np.ndarray:
    """Replaces ``numpy.core.multiarray._reconstruct``: returns an empty array to be filled."""
    if kind not in (PlainArray, np.ndarray):
        refuse("numpy.core.multiarray._reconstruct of another class")
    return np.ndarray.__new__(PlainArray, (0,), np.int8)


def _array_from_buffer(data: bytes, dtype: PlainDtype, shape: tuple, order: str) -> np.ndarray:
    """Replaces ``numpy.core.numeric._frombuffer``, with which protocol 5 stores arrays."""
    return np.frombuffer(data, _type_of(data, dtype, shape)).reshape(shape, order=order)


def _scalar(dtype: PlainDtype, data: bytes) -> np.generic:
    """Replaces ``numpy.core.multiarray.scalar``: returns one number."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, _type_of(data, dtype, ()))[0]


def _encode(text: str, encoding: str) -> bytes:
    """Replaces ``_codecs.encode``: returns bytes that pickle's protocol 2 stored as text."""
    if encoding != "latin1":
        refuse(f"_codecs.encode to {encoding!r}")
    return text.encode(encoding)


def _empty() -> bytes:
    """Replaces ``builtins.bytes``: protocol 2 stores empty bytes as a call of it."""
    return b""


def _history_method(owner: Any, name: str) -> Callable[..., Any]:
    """Replaces ``builtins.getattr``: returns HistoryBuffer's own statistics only."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        refuse("builtins.getattr")
    return getattr(HistoryBuffer, name)


def _named(function: Callable[..., Any], module: str, name: str) -> Callable[..., Any]:
    """Wrap a function under another name."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, call.__name__, call.__qualname__ = module, name, name
    return call


# DeiT-style training scripts, EfficientViT's among them, save their arguments.
_Namespace = type("Namespace", (SimpleNamespace,), {"__module__": "argparse"})


@lru_cache(maxsize=1)
def runner_globals() -> tuple[Callable[..., Any], ...]:
    """Return what checkpoints of mmengine's Runner and of training scripts use beyond tensors.

    ``__module__`` and ``__qualname__`` of each give the name that it replaces, which is the key in
    ``torch.serialization.add_safe_globals``.
    """
    arrays = [
        _named(function, f"numpy.{core}.{module}", name)
        # numpy 2 moved what numpy 1 wrote down as numpy.core
        for core in ("core", "_core")
        for function, module, name in (
            (_new_array, "multiarray", "_reconstruct"),
            (_scalar, "multiarray", "scalar"),
            (_array_from_buffer, "numeric", "_frombuffer"),
        )
    ]
    getter = _named(_history_method, "builtins", "getattr")
    empty = _named(_empty, "builtins", "bytes")
    return (HistoryBuffer, getter, empty, *arrays, PlainArray, PlainDtype, _Namespace)


# The Python implementation, because only it allows overriding BUILD and EXT.
class SafeUnpickler(pickle._Unpickler):
    """Reads tensors, numbers, containers and :func:`runner_globals`, and refuses everything else.

    It is used where ``weights_only=True`` is not enough: on torch < 2.6, which neither accepts
    additional classes reliably nor refuses TorchScript, and for pickles not written by torch.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the named object if it is allowed.

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

    def get_extension(self, code: int) -> NoReturn:
        """Refuse extension codes, which any library may have registered."""
        refuse(f"copyreg's extension {code}")

    def load_build(self) -> None:
        """Set the state of data objects only; a class or function would be changed permanently."""
        if not isinstance(self.stack[-2], _WITH_STATE):
            raise pickle.UnpicklingError(
                "a checkpoint may not change the functions and classes that it uses"
            )
        super().load_build()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


_WITH_STATE = (OrderedDict, HistoryBuffer, PlainArray, PlainDtype, _Namespace)


class ArrayUnpickler(SafeUnpickler):
    """Reads numpy arrays and numbers in plain containers, as in detectron2's ``.pkl`` files."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the named object if it is numpy's or a built-in container.

        Args:
            module: Dotted module name as written in the file.
            name: Name inside the module.

        Raises:
            pickle.UnpicklingError: It is anything else.
        """
        value = super().find_class(module, name)
        if module.partition(".")[0] != "numpy" and value not in _plain().values():
            refuse(f"{_PYTHON_2_MODULES.get(module, module)}.{name}")
        return value


@lru_cache(maxsize=1)
def _plain() -> dict[str, Any]:
    """Python's own containers and bytes, by name."""
    functions = (_named(_encode, "_codecs", "encode"), _named(_empty, "builtins", "bytes"))
    return {full_name(value): value for value in (*_CONTAINERS, *functions)}


@lru_cache(maxsize=1)
def _allowed() -> dict[str, Any]:
    """Everything that :class:`SafeUnpickler` allows, by name."""
    known = (*_TENSOR_FUNCTIONS, *_TENSOR_CLASSES, *runner_globals())
    dtypes = {str(v): v for v in vars(torch).values() if isinstance(v, torch.dtype)}
    return {full_name(value): value for value in known} | dtypes | _plain()
