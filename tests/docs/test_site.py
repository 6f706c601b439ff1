"""The documentation site: it builds without a warning, and a warning fails the build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmvitaccel

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.extras("docs", "sphinx", "myst_parser", "furo")


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    """What `make docs` runs, on any source."""
    options = ["-W", "--keep-going", "-n", "-q", "-c", ROOT / "docs", "-d", out / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, source, out / "html"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_make_docs_runs_the_same_command():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n\t\t", "")
    assert "sphinx-build -W --keep-going -n -q -c docs " in makefile


def test_every_page_is_there(site):
    written = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    sources = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/**/README.md")]
    assert {path.relative_to(ROOT).with_suffix("").as_posix() for path in sources} <= written
    assert 'url=docs/index.html"' in (site / "index.html").read_text()


def test_pages_load_nothing_from_outside(site):
    tags = re.compile(r"<(?:script|img|iframe)[^>]* src=[\"'](?:https?:)?//|<link[^>]*href=[\"']//")
    sheets = re.compile(r"<link(?=[^>]*stylesheet)[^>]*href=[\"']https?://")
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert not tags.search(text) and not sheets.search(text), path
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", path.read_text()), path


def test_the_reference_has_every_public_name_and_every_registered_type(site):
    from mmvitaccel.registry import HOOKS, MODELS

    pages = site / "docs" / "reference"
    text = "".join(path.read_text() for path in pages.glob("*.html"))
    names = [name for name in mmvitaccel.__all__ if not name.startswith("__")]
    assert [name for name in names if f'id="mmvitaccel.{name}"' not in text] == []
    types = (pages / "types.html").read_text()
    for registry in (MODELS, HOOKS):
        registry.import_from_location()
        own = registry.module_dict.items()  # and what other tests have left there
        own = [name for name, kind in own if kind.__module__.startswith("mmvitaccel.")]
        named = [f'id="{name.lower()}"' for name in own]
        assert named and [name for name in named if name not in types] == []
    # an argument, from a docstring
    assert "window_block_indexes" in types and "proportional_attention" in text


GOOD = """# Page

## A part

[a part](#a-part), [a page](other.md#there), [a folder](folder), [code](code), {py:obj}`len`
"""
BROKEN = """# Page

[a page](nowhere.md), [a part](other.md#not-there), [here](#nor-here), {py:class}`mmvitaccel.TopQ`

![a picture](none.png)
"""


@pytest.fixture
def source(tmp_path) -> Path:
    docs = tmp_path / "source" / "docs"
    (docs / "folder").mkdir(parents=True)
    (docs / "code").mkdir()
    for name in ("other", "folder/README"):
        (docs / f"{name}.md").write_text("---\norphan: true\n---\n\n# Other\n\n## There\n")
    return docs.parent


def test_links_that_lead_somewhere_build(source, tmp_path):
    (source / "docs" / "index.md").write_text(GOOD)
    done = build(source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "html" / "docs" / "index.html").read_text()
    assert 'href="other.html#there"' in page and 'href="folder/README.html"' in page


def test_a_broken_link_fails_the_build_by_name(source, tmp_path):
    (source / "docs" / "index.md").write_text(BROKEN)
    done = build(source, tmp_path / "out")
    assert done.returncode == 1
    for broken in ("nowhere.md", "not-there", "nor-here", "mmvitaccel.TopQ", "none.png"):
        assert re.search(rf"index.md:\d+: WARNING: .*{re.escape(broken)}", done.stderr), broken
