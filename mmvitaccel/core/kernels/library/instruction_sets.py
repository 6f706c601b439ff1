"""Instruction sets of prebuilt kernels, and the detection of processor features."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Names in Linux, which only lists features supported by the system.
_V3 = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])


@dataclass(frozen=True)
class InstructionSet:
    """An instruction set of prebuilt kernels.

    Args:
        name: Name in ``MMVITACCEL_KERNELS``.
        machine: Value of ``platform.machine()``.
        flags: Compiler flags for GCC and Clang.
        features: Required processor features, as named in ``/proc/cpuinfo``.
    """

    name: str
    machine: str
    flags: tuple[str, ...]
    features: frozenset[str]

    def missing(self) -> str:
        """Why this machine does not support it; empty if it does."""
        machine = platform.machine()
        if machine != self.machine:
            return f"this machine is {machine}, not {self.machine}"
        lacking = sorted(self.features - processor_features())
        return f"this processor lacks {', '.join(lacking)}" if lacking else ""


#: Fastest first for each machine.
INSTRUCTION_SETS = (
    InstructionSet(
        "x86-64-v4-bf16",
        "x86_64",
        ("-march=x86-64-v4", "-mavx512bf16"),
        _V4 | {"avx512_bf16"},
    ),
    InstructionSet("x86-64-v4", "x86_64", ("-march=x86-64-v4",), _V4),
    InstructionSet("x86-64-v3", "x86_64", ("-march=x86-64-v3",), _V3),
    InstructionSet("aarch64", "aarch64", ("-march=armv8-a",), frozenset({"fp", "asimd"})),
)


def processor_features() -> frozenset[str]:
    """Features of this processor, as named by Linux; empty if unknown."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def multiplies_half_faster() -> bool:
    """Whether this processor multiplies bfloat16 faster than single precision.

    Support for bfloat16 instructions is not sufficient: on Intel without AMX they take twice as
    long as those for single precision and do twice the work (measured on a Xeon of 2023).
    """
    features = processor_features()
    if platform.machine() != "x86_64":
        return "bf16" in features
    return "amx_bf16" in features or ("avx512_bf16" in features and "AuthenticAMD" in _vendor())


def _vendor() -> str:
    """Vendor of an x86 processor; empty if unknown."""
    try:
        found = re.search(r"^vendor_id\s*:\s*(\S+)", CPUINFO.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""
