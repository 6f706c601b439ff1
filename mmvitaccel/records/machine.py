"""The machine and the software that a measurement ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

#: Distributions whose versions can affect a figure; missing ones are left out.
DISTRIBUTIONS = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "timm",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "mmdet",
    "mmaction2",
    "onnxruntime",
    "scikit-learn",
)


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, GPU and the threads that torch uses now."""
    return {
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python, the compiler of the kernels, and the packages that count."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler:
        shown = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        found["c++"] = shown.stdout.partition("\n")[0]
    return found


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the CPU, with family and model on Linux.

    Virtual machines often hide the generation in the name, but not family and model.
    """
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    text = cpuinfo.read_text()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = found.get("model name", platform.machine())
    if "cpu family" in found and "model" in found:
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


def _memory_gib() -> int | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(size / 2**30)


class CpuWatch:
    """Measures the share of CPU time that other processes use, from now on (Linux only)."""

    def __init__(self) -> None:
        self._start = self._read()

    def share_of_others(self) -> float | None:
        """Share between 0 and 1; None if not available.

        Child processes count as this process once they have ended.
        """
        now = self._read()
        if self._start is None or now is None:
            return None
        seconds, busy, own = (b - a for a, b in zip(self._start, now))
        return min(1.0, max(0.0, busy - own) / max(seconds * (os.cpu_count() or 1), 1e-9))

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Current time, busy time of all cores, and CPU time of this process, in seconds."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        user, nice, system, _, _, irq, softirq, steal = map(
            int, stat.read_text().split("\n", 1)[0].split()[1:9]
        )
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, sum(os.times()[:4])
