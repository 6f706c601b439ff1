"""The lock names the pinned versions, each with a hash, and is made only of such."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = sorted((REQUIREMENTS / "lock").glob("*.txt"))
LINE = re.compile(r"([a-z0-9-]+)==([\w.]+) --hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, str]:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", key).lower(): version for key, version in pinned}


def item(**archive) -> dict:
    return {
        "metadata": {"name": "Some_Thing", "version": "1.2"},
        "download_info": {"url": "https://h/some_thing-1.2.whl", "archive_info": archive},
    }


def test_there_is_a_lock():
    assert "linux-x86_64-py311" in [path.stem for path in LOCKS]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_distribution_has_a_hash_and_pins_are_kept(path, script):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    locked = dict(LINE.fullmatch(line).groups() for line in lines)
    assert len(locked) == len(lines)
    assert list(locked) == sorted(locked)
    wanted = {}
    for name in script("resolve").DEFAULT:
        wanted |= pins(name)
    assert {name: locked.get(name) for name in wanted} == wanted, "run `make lock`"


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_lock_says_where_it_comes_from_and_how_to_use_it(path):
    header = path.read_text().partition("\n\n")[0]
    assert "Python Package Index" in header
    assert "`make lock`" in header
    assert f"--require-hashes -r requirements/lock/{path.name}" in header


def test_scripts_know_every_requirement_file(script):
    resolve = script("resolve")
    files = {path.stem for path in REQUIREMENTS.glob("*.txt")}
    assert {*resolve.DEFAULT, *resolve.EXTRAS} == files - {"classic", "onedl"}


def test_line_of_a_distribution(script):
    line = script("lock").line_of(item(hashes={"sha256": "ab" * 32}))
    assert line == f"some-thing==1.2 --hash=sha256:{'ab' * 32}\n"


@pytest.mark.parametrize("archive", [{}, {"hashes": {"md5": "0"}}])
def test_distribution_without_a_hash_is_refused(archive, script, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        script("lock").line_of(item(**archive))
    assert capsys.readouterr().out == (
        "Some_Thing 1.2: the index gives no sha256 for some_thing-1.2.whl; "
        "pin a release that has one.\n"
    )


def test_failed_resolution_writes_nothing(script, monkeypatch, tmp_path, capsys):
    lock = script("lock")
    resolve = lock.resolve
    monkeypatch.setitem(resolve.__globals__, "REQUIREMENTS", tmp_path)
    monkeypatch.setitem(resolve.__globals__, "PIP", f"pip @ file://{tmp_path}/missing.whl")
    monkeypatch.setattr(lock, "REQUIREMENTS", tmp_path)
    with pytest.raises(SystemExit, match=r"^2$"):
        lock.main()
    assert "pip could not resolve default, mmpretrain, test" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
