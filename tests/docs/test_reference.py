"""What the page of handles and protocols shows is there; building the site needs the extras."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "objects.md"
SHOWN = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", PAGE.read_text(), re.MULTILINE)


def test_each_is_shown_once():
    assert len(set(SHOWN)) == len(SHOWN) > 20


@pytest.mark.parametrize("path", SHOWN)
def test_what_the_page_shows_is_there_with_a_docstring(path):
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name).__doc__
