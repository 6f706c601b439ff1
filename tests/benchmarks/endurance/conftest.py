from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "endurance"


@pytest.fixture
def load_script():
    """``load_script('many_streams')`` gives a script of ``benchmarks/endurance`` as a module."""
    loaded = []

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f"endurance_{name}", FOLDER / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]
