"""What a library of a wheel may ask of a system. `make wheel-check` installs a wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmvitaccel.core.kernels.library.build import compiled, find_compiler
from mmvitaccel.core.kernels.library.instruction_sets import INSTRUCTION_SETS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    find_compiler() is None or shutil.which("readelf") is None, reason="no C++ compiler or readelf"
)


@pytest.fixture(scope="module")
def wheels():
    spec = importlib.util.spec_from_file_location("build_wheels", ROOT / "release/build_wheels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library(tmp_path):
    """``library(source, *flags)`` is a shared library of one C++ file."""

    def make(source, *flags):
        (tmp_path / "source.cpp").write_text(source)
        made = tmp_path / "library.so"
        command = [find_compiler(), "-shared", "-fPIC", tmp_path / "source.cpp", "-o", made, *flags]
        subprocess.run(command, check=True)
        return made

    return make


@pytest.mark.parametrize("name", ["x86-64-v3", "aarch64"])
def test_the_kernels_ask_for_nothing_newer_than_the_platform_has(wheels, name):
    (wanted,) = (s for s in INSTRUCTION_SETS if s.name == name)
    try:
        compiler = wheels.compiler_for(wanted.machine)
    except SystemExit as error:
        pytest.skip(str(error))
    made = compiled(compiler, *wanted.flags)
    wheels.check_symbols(made)
    assert {"GLIBC", "GLIBCXX"} <= set(wheels.symbol_versions(made)) <= set(wheels.NEWEST)
    assert "libstdc++.so.6" in wheels.needed_libraries(made)
    assert not [name for name in wheels.needed_libraries(made) if "omp" in name]


def test_a_newer_symbol_is_refused(wheels, library):
    made = library("#include <unistd.h>\nint f() { return gettid(); }")
    if wheels.symbol_versions(made).get("GLIBC") != (2, 30):
        pytest.skip("this system has no gettid@GLIBC_2.30")
    sentence = f"{made} needs GLIBC_2.30, which manylinux_2_28 does not have; build with an older"
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        wheels.check_symbols(made)


def test_another_library_is_refused(wheels, library):
    made = library("void g(); void f() {\n#pragma omp parallel\n  g(); }", "-fopenmp")
    if "libgomp.so.1" not in wheels.needed_libraries(made):
        pytest.skip("this compiler links another OpenMP runtime")
    with pytest.raises(SystemExit, match=r"needs .*libgomp\.so\.1, which manylinux_2_28 does not"):
        wheels.check_symbols(made)


def test_a_compiler_that_is_missing_is_named(wheels, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(wheels.platform, "machine", lambda: "x86_64")
    sentence = (
        "aarch64-linux-gnu-g++ is not installed; install it (Debian: apt-get install "
        "g++-aarch64-linux-gnu) or leave aarch64 out with --machines."
    )
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        wheels.compiler_for("aarch64")
