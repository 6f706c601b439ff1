"""The kernels of every instruction set that this machine can run, some of them in an emulator."""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mmvitaccel.core.kernels import operators
from mmvitaccel.core.kernels.library.build import compiled
from mmvitaccel.core.kernels.library.choice import Choice, find
from mmvitaccel.core.kernels.library.instruction_sets import INSTRUCTION_SETS, InstructionSet


def pack(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def pointers_in(kind: Any, offset: int = 0) -> Iterator[int]:
    """Offsets of the pointers in a structure."""
    if kind is ctypes.c_void_p:
        yield offset
    elif issubclass(kind, ctypes.Array):
        for index in range(kind._length_):
            yield from pointers_in(kind._type_, offset + index * ctypes.sizeof(kind._type_))
    elif issubclass(kind, ctypes.Structure):
        for name, of_field in kind._fields_:
            yield from pointers_in(of_field, offset + getattr(kind, name).offset)


def live_storages() -> dict[int, int]:
    """Sizes of the storages of all tensors on the CPU, by address."""
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    # Other tests leave sparse tensors behind, which have no storage
    dense = [t for t in tensors if t.device.type == "cpu" and t.layout is torch.strided]
    storages = [t.untyped_storage() for t in dense]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


class Emulated:
    """A kernel library of another machine; it takes what ``ctypes.CDLL`` takes.

    Args:
        command: Runs ``call_kernel.cpp`` with the library.
    """

    def __init__(self, *command: object) -> None:
        self._command = [str(part) for part in command]

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name)

    def _call(self, name: str, *args: Any) -> int:
        first, numbers = None, [int(getattr(a, "value", a)) for a in args[1:]]
        if args and isinstance(args[0], ctypes.c_void_p):  # an array, and its length
            first = (self._step() * numbers[0]).from_address(args[0].value)
        elif args:
            first = args[0]._obj  # of byref
        places, buffers, fixups = [], [], []
        if first is not None:
            places.append((ctypes.addressof(first), ctypes.sizeof(first)))
            buffers.append(bytes(first))
            storages = live_storages()
            for offset in pointers_in(type(first)):
                value = int.from_bytes(buffers[0][offset : offset + 8], "little")
                if not value:
                    continue
                start = max((a for a in storages if a <= value), default=0)
                assert value < start + storages.get(start, 0), f"{name}: a pointer into nothing"
                place = (start, storages[start])
                if place not in places:
                    places.append(place)
                    buffers.append(ctypes.string_at(*place))
                fixups.append((0, offset, places.index(place), value - start))
        given = [pack(len(name)), name.encode(), pack(len(numbers), *numbers), pack(len(buffers))]
        given += itertools.chain.from_iterable((pack(len(b)), b) for b in buffers)
        given += [pack(len(fixups)), *(pack(*fixup) for fixup in fixups)]
        done = subprocess.run(self._command, input=b"".join(given), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        result, made = struct.unpack("<q", done.stdout[:8])[0], done.stdout[8:]
        assert len(made) == sum(map(len, buffers))
        for (address, size), buffer in zip(places, buffers):
            if address != places[0][0] and made[:size] != buffer:
                ctypes.memmove(address, made[:size], size)
            made = made[size:]
        return ctypes.c_int(result).value

    @staticmethod
    def _step() -> type[ctypes.Structure]:
        from mmvitaccel.core.kernels.maps import Step

        return Step


@functools.cache
def emulated(wanted: InstructionSet) -> Emulated | str:
    """The kernels for another machine, or why they cannot run."""
    cross, emulator = f"{wanted.machine}-linux-gnu-g++", f"qemu-{wanted.machine}"
    for name, package in ((cross, cross.replace("gnu-g++", "gnu")), (emulator, "qemu-user")):
        if shutil.which(name) is None:
            package = f"g++-{package.replace('_', '-')}" if name == cross else package
            return f"{wanted.missing()}; {name} is not installed (Debian's {package})"
    library = compiled(shutil.which(cross), *wanted.flags)
    program = library.with_name("call_kernel")
    source = Path(__file__).with_name("call_kernel.cpp")
    subprocess.run(
        [cross, "-O1", "-std=c++17", source, "-o", program, "-pthread", "-ldl"], check=True
    )
    return Emulated(emulator, "-L", f"/usr/{wanted.machine}-linux-gnu", program, library)


@functools.cache
def kernels_for(name: str) -> Choice | str:
    """The kernels for an instruction set or ``native``, or why they cannot run."""
    try:
        choice = find(name)
        return choice.why if choice.library is None else choice
    except ValueError as error:
        (wanted,) = (s for s in INSTRUCTION_SETS if s.name == name)
        if wanted.machine == platform.machine():
            return str(error)
    library = emulated(wanted)
    return library if isinstance(library, str) else Choice(library, name, "emulated")


@pytest.fixture(params=["native", *(s.name for s in INSTRUCTION_SETS)])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has the kernels of one instruction set run; skips where that cannot be."""
    choice = kernels_for(request.param)
    if isinstance(choice, str):
        pytest.skip(choice)
    monkeypatch.setattr(operators, "chosen", lambda: choice)
    return request.param
