"""The kernels' threads are those of the OpenMP runtime that torch uses, whichever that is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmvitaccel.core.kernels.library import choice, openmp
from mmvitaccel.core.kernels.library.choice import chosen

# Attention and the steps of a model by three threads, and which file has the runtime's functions.
COMPARED = """
import torch
from mmvitaccel import CompiledEfficientViT
from mmvitaccel.core.kernels.attend import attend
from mmvitaccel.core.kernels.library.openmp import torch_runtime
from mmvitaccel.testing.models import efficientvit

torch.manual_seed(0)
torch.set_num_threads(3)
q, k, v = torch.randn(3, 1, 2, 600, 16)
model, x = efficientvit("m0"), torch.randn(1, 3, 64, 64)
with torch.no_grad():
    for _ in range(20):
        out, _ = attend(q, k, v, 0.3, None, None, None)
        torch.testing.assert_close(out, (0.3 * q @ k.mT).softmax(-1) @ v, rtol=1e-5, atol=1e-5)
        for found, expected in zip(CompiledEfficientViT(model)(x), model(x)):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
for address in torch_runtime():
    for line in open("/proc/self/maps"):
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address.value < last:
            print(line.split()[-1])
"""


def runtimes(**variables: str) -> list[str]:
    """Run it in a process of its own; the files that the two functions are in."""
    done = subprocess.run(
        [sys.executable, "-c", COMPARED],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_torchs_own_is_used(kernel):
    parallel, barrier = runtimes()
    assert parallel == barrier
    assert re.search(r"/lib(gomp|omp|iomp)[^/]*$", parallel)
    assert str(Path(torch.__file__).parent) in parallel or "conda" in parallel


def test_that_of_llvm_is_used_where_it_stands_before_torchs(kernel):
    """As in conda's torch, where torch's calls of GNU's functions go to LLVM's runtime."""
    found = sorted(Path("/usr/lib").glob("*/libomp.so.5"))
    if not found:
        pytest.skip("LLVM's OpenMP runtime is not installed (Debian's libomp5)")
    used = runtimes(LD_PRELOAD=str(found[0]))
    assert {Path(name).name for name in used} == {found[0].resolve().name}


def test_without_the_functions_torchs_operators_compute_and_it_is_said(kernel, monkeypatch):
    monkeypatch.setattr(openmp, "FUNCTIONS", ("GOMP_parallel", "no_such_barrier"))
    monkeypatch.setattr(choice, "FUNCTIONS", openmp.FUNCTIONS)
    chosen.cache_clear()
    sentence = "the OpenMP runtime of this torch has no GOMP_parallel and no_such_barrier"
    try:
        with pytest.warns(RuntimeWarning, match=sentence):
            assert chosen().library is None
    finally:
        monkeypatch.undo()
        chosen.cache_clear()
