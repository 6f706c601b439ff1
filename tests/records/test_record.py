"""Records: what is written is read again, and what cannot be shown is refused."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.records import record as records
from mmvitaccel.records.plan import read_plan
from mmvitaccel.records.record import Record, git_state, path_of, read_record, write_record

RECORD = Record(
    command="python benchmarks/tome.py",
    date="2026-01-31",
    seconds=61.5,
    commit="0123456789abcdef",
    uncommitted=False,
    machine=dict(cpu="a CPU", cores=2),
    versions=dict(torch="2.14.1"),
    others=0.01,
    rows=[dict(model="m0", r=8, speedup=1.5, error=None, best=True)],
)


def test_written_is_read(tmp_path):
    write_record(tmp_path / "new" / "tome.json", RECORD)
    assert read_record(tmp_path / "new" / "tome.json") == RECORD


@pytest.mark.parametrize("value", [math.nan, math.inf, [1], {"a": 1}])
def test_what_a_page_cannot_show_is_not_written(tmp_path, value):
    rows = [dict(a=1), dict(a=value)]
    with pytest.raises(ValueError, match=r"row 1, column 'a': .* cannot be recorded"):
        write_record(tmp_path / "a.json", replace(RECORD, rows=rows))
    with pytest.raises(ValueError, match="at least one row, but has none"):
        write_record(tmp_path / "a.json", replace(RECORD, rows=[]))
    assert not (tmp_path / "a.json").exists()


def test_what_is_no_record_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not JSON .*run its benchmark again"):
        read_record(path)
    content = {key: None for key in RECORD.__dataclass_fields__ if key != "date"} | {"day": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"lacks \['date'\] and has \['day'\] besides"):
        read_record(path)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"is not a record: it lacks \['command', "):
        read_record(path)


@pytest.mark.parametrize("name", ["../tome", "Tome", "tome_train", "video.mp4", "a--b", ""])
def test_names_of_records(name):
    with pytest.raises(UserError, match=f"'{name}' cannot name a record"):
        path_of(name)


def test_every_record_in_the_repository_is_one_and_is_planned():
    plan = read_plan()
    for path in records.RESULTS.glob("*.json"):
        assert path.stem in plan, f"{path.name} is in no plan: delete it, or plan it"
        assert read_record(path).rows


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository with one commit; a function that runs git in it."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", *identity, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    for name in ("code.py", "README.md", "configs/README.md", "benchmarks/results/a.json"):
        (tmp_path / name).write_text("one")
    git("add", "-A")
    git("commit", "-qm", "one")
    monkeypatch.setattr(records, "CHECKOUT", tmp_path)
    return git


def test_commit_and_whether_code_differs_from_it(checkout, tmp_path):
    commit = checkout("rev-parse", "HEAD")
    assert git_state() == (commit, False)
    for name in ("README.md", "configs/README.md", "benchmarks/results/a.json", "untracked.py"):
        (tmp_path / name).write_text("two")
    assert git_state() == (commit, False)
    (tmp_path / "code.py").write_text("two")
    assert git_state() == (commit, True)


def test_without_git_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "CHECKOUT", tmp_path)
    with pytest.raises(UserError, match=r"--record needs a git checkout, .*; use --json, or"):
        git_state()
