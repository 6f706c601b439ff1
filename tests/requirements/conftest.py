"""The scripts beside the requirement files, imported as they import each other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


@pytest.fixture
def script(monkeypatch):
    """``script('lock')`` imports ``requirements/lock.py`` and forgets it after the test."""
    monkeypatch.syspath_prepend(str(REQUIREMENTS))

    def load(name: str):
        for module in ("resolve", name):
            monkeypatch.delitem(sys.modules, module, raising=False)
        module = importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
        return module

    return load
