"""Selection of the kernels of this process.

The first available of these is used: prebuilt kernels (from a platform wheel) for the best
instruction set that the processor supports; kernels compiled locally for this processor; none, in
which case torch's operators compute the same result more slowly. The variable
``MMVITACCEL_KERNELS`` overrides this: the name of an instruction set (prebuilt, else compiled
locally), ``native`` (compiled locally) or ``none``.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import warnings
from dataclasses import dataclass

from mmvitaccel.core.kernels.library.build import NATIVE, SOURCES, compiled, find_compiler
from mmvitaccel.core.kernels.library.instruction_sets import INSTRUCTION_SETS, InstructionSet
from mmvitaccel.core.kernels.library.openmp import FUNCTIONS, torch_runtime

VARIABLE = "MMVITACCEL_KERNELS"
PREBUILT = SOURCES / "prebuilt"  # in wheels: NAME.so for some instruction sets


@dataclass(frozen=True)
class Choice:
    """The kernels of this process.

    Args:
        library: The loaded library, or None.
        name: The instruction set, ``native``, or ``none`` if requested; empty if there are no
            kernels.
        why: Their origin, or why there are none.
    """

    library: ctypes.CDLL | None
    name: str
    why: str


@functools.cache
def chosen() -> Choice:
    """The kernels of this process, with a warning if there are none.

    Raises:
        ValueError: ``MMVITACCEL_KERNELS`` is unknown or not supported by this machine.
    """
    choice = find(os.environ.get(VARIABLE, ""))
    if choice.library is None and choice.name != "none":
        warnings.warn(
            f"mmvitaccel has no compiled kernels: {choice.why}. "
            "Torch's operators compute the same result more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
    return choice


def find(asked: str) -> Choice:
    """Find kernels that can use torch's threads.

    Args:
        asked: Value of ``MMVITACCEL_KERNELS``; empty for the best available.

    Raises:
        ValueError: The value is unknown or not supported by this machine.
    """
    if asked == "none":
        return Choice(None, "none", f"{VARIABLE}=none")
    if asked == "native":
        choice = compile_here("native", NATIVE)
    elif asked:
        wanted = _named(asked)
        choice = load_prebuilt(wanted)
        if choice.library is None:
            choice = compile_here(wanted.name, wanted.flags)
    else:
        choice = _best()
    if choice.library is None:
        return choice
    runtime = torch_runtime()
    if runtime is None:
        why = f"the OpenMP runtime of this torch has no {' and '.join(FUNCTIONS)}"
        return Choice(None, "", why)
    choice.library.use_threads(*runtime)
    return choice


def _best() -> Choice:
    reasons = []
    for wanted in INSTRUCTION_SETS:
        if not wanted.missing():
            prebuilt = load_prebuilt(wanted)
            if prebuilt.library is not None:
                return prebuilt
            reasons.append(prebuilt.why)
    here = compile_here("native", NATIVE)
    damaged = [why for why in reasons if why]
    return Choice(here.library, here.name, "; ".join([*damaged, here.why]))


def _named(asked: str) -> InstructionSet:
    named = {wanted.name: wanted for wanted in INSTRUCTION_SETS}
    if asked not in named:
        raise ValueError(f"{VARIABLE}={asked}: it is one of {', '.join(named)}, native and none.")
    missing = named[asked].missing()
    if missing:
        can_run = [name for name, wanted in named.items() if not wanted.missing()]
        raise ValueError(
            f"{VARIABLE}={asked}: {missing}. It can be {', '.join([*can_run, 'native or none'])}."
        )
    return named[asked]


def load_prebuilt(wanted: InstructionSet) -> Choice:
    """A wheel's kernels for an instruction set; the reason is empty if it has none."""
    path = PREBUILT / f"{wanted.name}.so"
    if not path.exists():
        return Choice(None, "", "")
    try:
        return Choice(ctypes.CDLL(str(path)), wanted.name, f"prebuilt: {path}")
    except OSError as error:
        return Choice(None, "", f"{path} cannot be loaded: {error}")


def compile_here(name: str, target: tuple[str, ...]) -> Choice:
    """Compile the kernels on this machine, with flags that select the processor."""
    compiler = find_compiler()
    if compiler is None:
        wanted = os.environ.get("CXX", "c++")
        return Choice(None, "", f"no C++ compiler ({wanted} not found): install one, or set CXX")
    try:
        path = compiled(compiler, *target)
        return Choice(ctypes.CDLL(str(path)), name, f"compiled here by {compiler}: {path}")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        why = f"{compiler} failed with status {error.returncode}: {said or 'no message'}"
    # RuntimeError without a home directory
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        why = f"the kernels could not be compiled or loaded: {error}"
    return Choice(None, "", why)
