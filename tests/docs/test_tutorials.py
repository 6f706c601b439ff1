"""The tutorials, run as they stand: each in a fresh process, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("run_page.py")
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NEEDS = {"mmaction2": "mmaction"}  # a package that not every stack has


def run(page: Path, folder: Path) -> subprocess.CompletedProcess:
    for name in ("configs", "tools"):
        (folder / name).symlink_to(ROOT / name)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(RUN), str(page)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path):
    pytest.importorskip(NEEDS.get(page.stem, "torch"))
    done = run(page, tmp_path)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_tutorials_are_those_that_the_site_promises():
    assert {page.stem for page in PAGES} == {"adapter", "budget", "mmaction2", "mmdet", "policy"}
    assert all("assert " in page.read_text() for page in PAGES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nx = 1\n```\n\nand\n\n```python\nassert x == 2\n```\n", r'page.md", line 8'),
        ("```python\n# mine.py\ny = 3\n```\n```python\nimport mine\nmine.z\n```\n", "'z'"),
        ("one\n\n```bash\nfalse\ntrue\n```\n", "exit status 1"),
    ],
)
def test_a_page_that_is_wrong_fails(text, message, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    done = run(page, tmp_path)
    assert done.returncode != 0
    assert re.search(message, done.stderr)
