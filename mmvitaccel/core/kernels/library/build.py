"""Compiling the kernels: on first use on a user's machine, and for a wheel.

The sources include only standard headers, so they only need a compiler.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parents[1]
FLAGS = ("-O3", "-std=c++17", "-fPIC")
NATIVE = ("-march=native",)  # the local processor


def find_compiler() -> str | None:
    """Path of the C++ compiler: the one in ``CXX``, else ``c++``; None if there is none."""
    return shutil.which(os.environ.get("CXX", "c++"))


def compiled(compiler: str, *target: str) -> Path:
    """Compile the library, or take it from the user's cache.

    Args:
        compiler: Path of the C++ compiler.
        *target: Flags that select the processor.

    Raises:
        OSError: The cache cannot be written.
        RuntimeError: There is no home directory for the cache.
        subprocess.SubprocessError: The compiler failed, or took minutes.
    """
    sources = sorted(SOURCES.glob("*.cpp"))
    flags = (*FLAGS, *target)
    # These macros identify compiler, version and processor; a cache may be on a shared disk
    macros = _run(compiler, *flags, "-E", "-dM", "-x", "c++", os.devnull)
    texts = [path.read_bytes() for path in (*sources, *sorted(SOURCES.glob("*.h")))]
    parts = (*texts, macros, " ".join(flags).encode(), platform.machine().encode())
    key = hashlib.sha256(b"\n".join(parts)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmvitaccel"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = cache / f"kernels-{key[:16]}.so"
    if not library.exists():
        # written under a temporary name and moved, so concurrent processes never see a partial file
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            objects = [Path(folder) / f"{path.stem}.o" for path in sources]
            with ThreadPoolExecutor() as pool:
                commands = [
                    (compiler, *flags, "-c", path, "-o", made)
                    for path, made in zip(sources, objects)
                ]
                list(pool.map(lambda command: _run(*command), commands))
            _run(compiler, "-shared", "-s", *objects, "-o", Path(folder) / library.name)
            os.replace(Path(folder) / library.name, library)
    return library


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=300).stdout
