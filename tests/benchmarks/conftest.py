"""Scripts of the folder of benchmarks as modules, and records that go elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from mmvitaccel.records import record


@pytest.fixture
def load_benchmark(monkeypatch):
    """``load_benchmark('tome')`` is the module ``benchmarks/tome.py``."""

    def load(name):
        path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        # reason: dataclasses look their module up while it is being run
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """``recorded(name)`` reads a record that a benchmark has written into a folder of the test."""
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "git_state", lambda: ("0123456789abcdef", False))
    monkeypatch.setattr("mmvitaccel.records.recording.git_state", record.git_state)
    return lambda name: record.read_record(record.path_of(name))
