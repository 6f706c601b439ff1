"""What becomes of the compiled kernels where they can be had, and where not."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.kernels.compiler import SOURCES, can_attend, can_run, kernels


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache, asked for anew."""
    kernels.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "mmvitaccel"
    kernels.cache_clear()


def test_they_serve_single_precision_on_a_cpu(kernel):
    assert can_run(torch.zeros(1, 4, 5), torch.zeros(3))
    assert not can_run(torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16))
    assert not can_run(torch.zeros(3, device="meta"))


def test_attention_wants_heads_that_fill_vectors(kernel):
    assert can_attend(torch.zeros(1, 4, 16), torch.zeros(1, 7, 16))
    assert can_attend(torch.zeros(1, 4, 128))
    assert not can_attend(torch.zeros(1, 4, 8))
    assert not can_attend(torch.zeros(1, 4, 144))
    assert not can_attend(torch.zeros(1, 4, 16), torch.zeros(1, 4, 32))
    assert not can_attend(torch.zeros(1, 4, 0))
    assert not can_attend(torch.zeros(1, 4, 16), torch.zeros(1, 4, 16, dtype=torch.bfloat16))


def test_what_is_traced_holds_no_kernel(kernel):
    seen = []

    def f(x):
        seen.append(can_run(x))
        return x + 1

    torch.jit.trace(f, torch.zeros(1, 4, 16), check_trace=False)
    assert seen == [False]


def test_it_is_compiled_once_and_kept(kernel, fresh, monkeypatch):
    assert kernels() is not None
    (library,) = fresh.iterdir()
    assert fresh.stat().st_mode & 0o077 == 0
    kernels.cache_clear()
    before = library.stat().st_mtime_ns
    assert kernels() is not None and library.stat().st_mtime_ns == before


@pytest.mark.parametrize("why", ["no compiler", "it fails", "damaged"])
def test_without_it_nothing_is_compiled(fresh, monkeypatch, why, tmp_path):
    if why == "damaged":
        if kernels() is None:
            pytest.skip("no C++ compiler: install one, or name it in CXX")
        (library,) = fresh.iterdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        (tmp_path / "other" / "mmvitaccel").mkdir(parents=True)
        (tmp_path / "other" / "mmvitaccel" / library.name).write_bytes(b"no library")
        kernels.cache_clear()
    else:
        compiler = tmp_path / "compiler"
        compiler.write_text("#!/bin/sh\nexit 1\n")
        compiler.chmod(0o755)
        name = "no-such-compiler" if why == "no compiler" else str(compiler)
        monkeypatch.setenv("CXX", name)
    assert kernels() is None
    assert not can_run(torch.zeros(1, 4, 16))


def test_the_sources_are_beside_the_module():
    names = {path.name for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h")}
    assert names == {"rows.h", "attend.cpp", "errors.cpp", "exchange.cpp", "maps.cpp"}
