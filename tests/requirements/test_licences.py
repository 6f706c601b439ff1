"""The page of licences lists what is pinned, and what wheels carry that is copyleft."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
# Libraries that are GPL or LGPL, and a word that the page must have for the wheel that carries one.
COPYLEFT = {
    "libx264": "libx264",
    "libx265": "libx265",
    "libavcodec": "FFmpeg",
    "libQt5Core": "Qt 5",
    "libgfortran": "libgfortran",
    "libgomp": "libgomp",
    "libquadmath": "libquadmath",
    "libgeos": "GEOS",
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(page: str) -> dict[str, str]:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\d[\w.+]*) \| (.+) \|$", page, re.M)
    assert all(licence.strip() for *_, licence in rows)
    return {name: version for name, version, _ in rows}


def carried(page: str) -> dict[str, str]:
    section = page.partition("## What wheels carry")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", section, re.M))


def test_page_lists_every_pinned_version():
    listed = versions(PAGE.read_text())
    wrong = []
    for path in (ROOT / "requirements").glob("*.txt"):
        if path.stem in ("classic", "onedl"):  # stacks of their own; the page says so
            continue
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                name, version = re.sub(r"\[.*\]", "", line).split("==")
                if listed.get(normalized(name)) != version:
                    wrong.append(line)
    assert wrong == [], "run `make licences`"


def test_page_lists_every_locked_distribution():
    listed = versions(PAGE.read_text())
    for path in (ROOT / "requirements" / "lock").glob("linux-x86_64-*.txt"):
        locked = re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.M)
        assert {name: listed.get(name) for name, _ in locked} == dict(locked), "run `make licences`"


def test_page_names_gpl_and_lgpl_parts():
    parts = carried(PAGE.read_text())
    assert "x264 and x265" in parts["av"]
    assert "GPL-2.0-or-later" in parts["av"]
    assert "nonfree" in parts["decord"]
    for name in ("opencv-python", "opencv-contrib-python"):
        assert "FFmpeg (libavcodec and others, LGPL-2.1-or-later)" in parts[name]


def test_installed_wheels_carry_what_the_page_says():
    page = PAGE.read_text()
    parts, listed = carried(page), versions(page)
    found = set()
    for distribution in importlib.metadata.distributions():
        name = normalized(distribution.metadata["Name"])
        for file in (distribution.files or ()) if name in listed else ():
            found |= {(name, word) for part, word in COPYLEFT.items() if file.name.startswith(part)}
    if not found:
        pytest.skip("no installed wheel carries one of these libraries")
    assert {(name, word) for name, word in found if word not in parts.get(name, "")} == set()


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license_expression": "MIT", "license": "old"}, "MIT"),
        ({"license": "Apache 2.0", "classifier": ["License :: Other"]}, "Apache 2.0"),
        (
            {"license": "UNKNOWN", "classifier": ["License :: OSI Approved :: MIT License"]},
            "MIT License",
        ),
        (
            {
                "license": "Copyright\nwho",
                "classifier": ["License :: OSI Approved :: A", "Topic :: T", "License :: B"],
            },
            "A, B",
        ),
        ({"license": "BSD 3-Clause\n\ntext"}, "BSD 3-Clause"),
        ({}, "not stated in its metadata"),
    ],
)
def test_licence_that_metadata_state(metadata, licence, script):
    assert script("licences").licence_of(metadata) == licence


def test_table(script):
    items = [{"metadata": {"name": "A_b", "version": "1", "license": "X | Y"}}]
    assert script("licences").table_of(items).splitlines()[2:] == ["| a-b | 1 | X / Y |"]
