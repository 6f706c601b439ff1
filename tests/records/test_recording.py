"""The option --record: what it writes, where, and that nothing happens without it."""

from __future__ import annotations

import argparse
import sys

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.records import record as records
from mmvitaccel.records import recording
from mmvitaccel.records.record import CHECKOUT, read_record
from mmvitaccel.records.recording import Recording, add_record_option, command_of

SCRIPT = str(CHECKOUT / "benchmarks" / "tome_accuracy.py")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(recording, "git_state", lambda: ("abc", True))
    return tmp_path


def parse(*argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("video", nargs="?")
    add_record_option(parser)
    return parser.parse_args(argv).record


def test_option():
    assert parse("a.mp4") is None
    assert parse("a.mp4", "--record") == ""
    assert parse("a.mp4", "--record", "tome") == "tome"


def test_nothing_is_written_unasked(results):
    Recording(None, SCRIPT, []).save([dict(a=1)])
    assert list(results.iterdir()) == []


def test_what_is_written(results, capsys):
    argv = ["--epochs", "2", "--record", "--out", "a b"]
    rows = [dict(r=8, accuracy=70.5), dict(r=16, accuracy=None)]
    Recording("", SCRIPT, argv).save(rows)
    found = read_record(results / "tome-accuracy.json")
    assert found.command == "python benchmarks/tome_accuracy.py --epochs 2 --out 'a b'"
    assert found.rows == rows
    assert (found.commit, found.uncommitted) == ("abc", True)
    assert found.machine["cores"] >= 1 and found.machine["cpu"]
    assert found.versions["torch"] == sys.modules["torch"].__version__.partition("+")[0]
    assert found.seconds >= 0 and (found.others is None or 0 <= found.others <= 1)
    assert f"recorded in {results / 'tome-accuracy.json'}" in capsys.readouterr().out


def test_a_wrong_name_is_refused_before_anything_is_measured(results):
    with pytest.raises(UserError, match=r"'pool\.mp4' cannot name a record"):
        Recording("pool.mp4", SCRIPT, ["--record", "pool.mp4"])


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["a.mp4", "--record", "name", "--k", "8"], "a.mp4 --k 8"),
        (["--record=name", "a.mp4"], "a.mp4"),
        (["a.mp4", "--record"], "a.mp4"),
        (["--ways", "traced, frozen"], "--ways 'traced, frozen'"),
    ],
)
def test_the_command_is_the_one_to_type_again(argv, expected, tmp_path):
    assert command_of(SCRIPT, argv) == f"python benchmarks/tome_accuracy.py {expected}"
    assert command_of(str(tmp_path / "x.py"), []) == f"python {tmp_path / 'x.py'}"
