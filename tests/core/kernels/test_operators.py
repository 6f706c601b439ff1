"""What the compiled kernels are asked for, and what not."""

from __future__ import annotations

import torch

from mmvitaccel.core.kernels.library.build import SOURCES
from mmvitaccel.core.kernels.operators import can_attend, can_run


def test_they_serve_single_precision_and_bfloat16_on_a_cpu(kernel):
    assert can_run(torch.zeros(1, 4, 5), torch.zeros(3))
    assert can_run(torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16))
    assert not can_run(torch.zeros(3), torch.zeros(3, dtype=torch.float16))
    assert not can_run(torch.zeros(3, dtype=torch.float64))
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


def test_the_sources_are_beside_the_module():
    names = {path.name for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h")}
    assert names == {
        "rows.h",
        "threads.h",
        "threads.cpp",
        "attend.cpp",
        "errors.cpp",
        "exchange.cpp",
        "maps.cpp",
        "merge.cpp",
        "roi_align.cpp",
    }
