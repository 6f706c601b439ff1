"""The files that a reader and the tools of a forge expect, and that they agree with the package."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import mmvitaccel

ROOT = Path(__file__).parents[1]
PAPERS = {"2305.07027", "2210.09461", "2308.13494"}
APACHE_2 = "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"
LARGEST_PICTURE = 300 * 1024  # bytes


def test_license_is_the_full_text_of_apache_2():
    text = " ".join((ROOT / "LICENSE").read_text().split())
    # the text of https://www.apache.org/licenses/LICENSE-2.0.txt, white space joined
    assert hashlib.sha256(text.encode()).hexdigest() == APACHE_2
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text()


def test_citation_names_this_version_and_the_three_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == mmvitaccel.__version__
    assert citation["license"] == "Apache-2.0"
    assert {r["url"].rpartition("/")[2] for r in citation["references"]} == PAPERS
    for name in ("configs/README.md", "configs/tome/README.md", "configs/eventful/README.md"):
        assert any(paper in (ROOT / name).read_text() for paper in PAPERS), name


def test_hooks_download_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system", hook["id"]


def links(page: Path) -> list[str]:
    """Relative links and pictures of a Markdown page, without their anchors."""
    found = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
    return [link for link in found if "://" not in link]


PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "configs").rglob("*.md"), *(ROOT / "docs").rglob("*.md")}
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_paths_in_a_page_are_there(page):
    named = re.findall(
        r"`((?:mmvitaccel|tests|tools|configs|benchmarks|docs)/[\w./-]+)`",
        (ROOT / page).read_text(),
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_committed_pictures_are_small():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    pictures = [ROOT / p for p in listed if p.endswith((".png", ".jpg", ".gif", ".webp", ".svg"))]
    large = {p.name: p.stat().st_size for p in pictures if p.stat().st_size > LARGEST_PICTURE}
    assert large == {}
