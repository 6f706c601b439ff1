"""The benchmark of prebuilt kernels, on small shapes."""

from __future__ import annotations

import pytest

from mmvitaccel.core.kernels.library.build import find_compiler

KERNELS = [
    "attend", "attend_windows", "attend_merged", "exchange_keys", "match_tokens", "merge_tokens",
    "normed_errors",
]  # fmt: skip


@pytest.fixture
def benchmark(kernel, load_benchmark):
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    return load_benchmark("kernels")


def test_each_kernel_has_a_row(benchmark, recorded, capsys):
    benchmark.main(["--quick", "--rounds", "2", "--record", "kernels"])
    shown = capsys.readouterr().out
    rows = recorded("kernels").rows
    assert [row["kernel"] for row in rows] == [*KERNELS, "run_steps"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ahead_ms"] / row["here_ms"])
        assert f"{row['ratio']:.3f}" in shown


def test_both_are_the_kernels_that_they_are_said_to_be(benchmark):
    ahead, here = benchmark.wanted("native"), benchmark.wanted("native")
    asked = []
    for choice in (ahead, here):
        benchmark.with_kernels(choice, lambda: asked.append(benchmark.operators.kernels()))()
    assert asked == [ahead.library, here.library] and ahead.library is not here.library


def test_a_set_that_the_processor_lacks_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--quick", "--set", "riscv64"])
    assert "invalid choice: 'riscv64'" in capsys.readouterr().err
