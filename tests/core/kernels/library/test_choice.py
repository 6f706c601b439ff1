"""Which kernels run: made ahead, compiled here, or none; asked for by the variable or not."""

from __future__ import annotations

import platform
import shutil
import sys
import warnings

import pytest
import torch

from mmvitaccel.core.kernels.library import choice, instruction_sets
from mmvitaccel.core.kernels.library.build import NATIVE, compiled, find_compiler
from mmvitaccel.core.kernels.library.choice import VARIABLE, chosen, find
from mmvitaccel.core.kernels.library.instruction_sets import INSTRUCTION_SETS
from mmvitaccel.core.kernels.operators import can_run, kernels
from mmvitaccel.env.surroundings import inspect_kernels
from mmvitaccel.env.versions import Row

V3 = "flags\t\t: fpu sse avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"
# what /proc/cpuinfo says, the machine, the sets that it can run with the best first
PROCESSORS = {
    "bf16": (V4 + " avx512_bf16", "x86_64", ["x86-64-v4-bf16", "x86-64-v4", "x86-64-v3"]),
    "v4": (V4, "x86_64", ["x86-64-v4", "x86-64-v3"]),
    "v3": (V3, "x86_64", ["x86-64-v3"]),
    "without FMA": (V3.replace(" fma", ""), "x86_64", []),
    "with half of AVX-512": (V3 + " avx512f avx512_bf16", "x86_64", ["x86-64-v3"]),
    "arm": ("Features\t: fp asimd evtstrm", "aarch64", ["aarch64"]),
    "silent": ("", "x86_64", []),
    "other": (V3, "riscv64", []),
}


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Asked anew in each test, as nothing was asked for."""
    monkeypatch.delenv(VARIABLE, raising=False)
    chosen.cache_clear()
    yield
    chosen.cache_clear()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mmvitaccel"


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """``processor(name)`` has this machine look like one of ``PROCESSORS``."""

    def look_like(name):
        text, machine, _ = PROCESSORS[name]
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(instruction_sets, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(platform, "machine", lambda: machine)

    return look_like


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A wheel's folder with kernels for every set: all of them those of this processor."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path / "prebuilt"
    folder.mkdir()
    for wanted in INSTRUCTION_SETS:
        shutil.copy(compiled(find_compiler(), *NATIVE), folder / f"{wanted.name}.so")
    monkeypatch.setattr(choice, "PREBUILT", folder)
    return folder


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_a_processor_can_run(processor, name):
    processor(name)
    assert [s.name for s in INSTRUCTION_SETS if not s.missing()] == PROCESSORS[name][2]


@pytest.mark.parametrize("name", [n for n, (_, _, sets) in PROCESSORS.items() if sets])
def test_the_best_that_was_made_ahead_is_taken(wheel, processor, monkeypatch, name):
    processor(name)
    monkeypatch.setenv("CXX", "no-such-compiler")
    best, *others = PROCESSORS[name][2]
    assert (chosen().name, chosen().why) == (best, f"prebuilt: {wheel / best}.so")
    assert can_run(torch.zeros(3))
    chosen.cache_clear()
    (wheel / f"{best}.so").unlink()
    if others:
        assert chosen().name == others[0]
    else:
        with pytest.warns(RuntimeWarning, match="no-such-compiler not found"):
            assert chosen().library is None


def test_one_that_is_damaged_is_named_and_the_next_is_taken(wheel, processor):
    processor("v3")
    (wheel / "x86-64-v3.so").write_bytes(b"no library")
    assert chosen().name == "native"
    assert chosen().why.startswith(f"{wheel / 'x86-64-v3.so'} cannot be loaded: ")
    assert "; compiled here by " in chosen().why


def test_the_variable_takes_another(wheel, processor, monkeypatch):
    processor("v4")
    monkeypatch.setenv(VARIABLE, "x86-64-v3")
    assert chosen().why == f"prebuilt: {wheel / 'x86-64-v3.so'}"
    monkeypatch.setenv(VARIABLE, "native")
    chosen.cache_clear()
    assert chosen().why.startswith("compiled here by ")
    monkeypatch.setenv(VARIABLE, "none")
    chosen.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels() is None
    assert not can_run(torch.zeros(3))


def test_what_cannot_be_taken_is_refused_in_a_sentence(processor, monkeypatch):
    processor("v4")
    names = "x86-64-v4-bf16, x86-64-v4, x86-64-v3, aarch64"
    for asked, sentence in {
        "avx2": f"MMVITACCEL_KERNELS=avx2: it is one of {names}, native and none.",
        "x86-64-v4-bf16": "MMVITACCEL_KERNELS=x86-64-v4-bf16: this processor lacks avx512_bf16. "
        "It can be x86-64-v4, x86-64-v3, native or none.",
        "aarch64": "MMVITACCEL_KERNELS=aarch64: this machine is x86_64, not aarch64. "
        "It can be x86-64-v4, x86-64-v3, native or none.",
    }.items():
        monkeypatch.setenv(VARIABLE, asked)
        with pytest.raises(ValueError) as error:
            kernels()
        assert str(error.value) == sentence
        assert inspect_kernels() == Row("kernels", "-", "wrong", sentence)


def test_it_is_compiled_once_and_kept(cache, monkeypatch, tmp_path):
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    assert find("native").library is not None
    (library,) = cache.iterdir()
    assert cache.stat().st_mode & 0o077 == 0
    before = library.stat().st_mtime_ns
    assert find("native").why == f"compiled here by {find_compiler()}: {library}"
    assert library.stat().st_mtime_ns == before
    # In another cache, since the file is mapped
    damaged = tmp_path / "other" / "mmvitaccel" / library.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no library")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert find("native").library is None
    assert find("native").why.startswith("the kernels could not be compiled or loaded: ")


def test_without_a_compiler_or_with_one_that_fails_it_is_said_once(cache, monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'error: no such flag' >&2\nexit 3\n")
    compiler.chmod(0o755)
    for name, why in {
        "no-such-compiler": "no C++ compiler (no-such-compiler not found): install one, or set CXX",
        str(compiler): f"{compiler} failed with status 3: error: no such flag",
    }.items():
        chosen.cache_clear()
        monkeypatch.setenv("CXX", name)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert [can_run(torch.zeros(3)) for _ in range(3)] == [False] * 3
        assert [str(w.message) for w in said] == [
            f"mmvitaccel has no compiled kernels: {why}. "
            "Torch's operators compute the same result more slowly."
        ]
        slower = "; torch's operators compute the same on a CPU, more slowly"
        assert inspect_kernels() == Row("kernels", "-", "note", why + slower)


def test_the_report_names_the_kernels(kernel):
    row = inspect_kernels()
    assert (row.found, row.verdict, row.remark) == (chosen().name, "ok", chosen().why)
    assert row.remark.startswith(("compiled here by ", f"prebuilt: {sys.prefix}"))
