from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check(load_benchmark):
    return load_benchmark("cuda_check")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence(check, capsys):
    with pytest.raises(SystemExit) as stopped:
        check.main([])
    assert stopped.value.code == 2
    assert "There is no CUDA GPU that torch" in capsys.readouterr().err


def test_the_table(check, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "WAYS", ("float32", "bfloat16"))
    check.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "out.json")])
    tests, *rows = json.loads((tmp_path / "out.json").read_text())
    assert tests["what"] == "tests" and " passed" in tests["result"]
    assert [row["way"] for row in rows] == 2 * ["float32", "bfloat16"]
    printed = capsys.readouterr().out
    for row in rows:
        assert not row["result"] and row["dense_ms"] > 0 and 0 < row["error"] < 1
        assert f"{row['dense_ms'] / row['method_ms']:.2f}x" in printed


def test_what_fails_stands_in_the_table(check):
    def refuse(model):
        model.forward = None
        return model

    case = check.Case(lambda: torch.nn.Linear(3, 3), refuse, (1, 3))
    row = check.measure("linear", case, "float32", torch.device("cpu"), 1)
    assert row.result.startswith("TypeError: 'NoneType'") and row.dense_ms is None
    assert "TypeError" in str(row)


def test_tests_make_their_tensors_on_the_device(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_where.py").write_text(
        "import torch\n\nHERE = torch.zeros(1)\n\ndef test_where():\n"
        "    assert HERE.device.type == torch.nn.Linear(2, 2).weight.device.type == 'meta'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    for device, status in (("meta", 0), ("", 1)):
        env = {"MMVITACCEL_TEST_DEVICE": device, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        assert subprocess.run(command, env=env, check=False).returncode == status
