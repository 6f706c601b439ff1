"""The run of all records: order, what each is given, and what fails."""

from __future__ import annotations

import pytest

from mmvitaccel.records import record as records
from mmvitaccel.records.plan import Planned

WRITES = "import sys; print('ran', sys.argv[1:]); sys.exit('--fail' in sys.argv)"


@pytest.fixture
def run_all(load_benchmark, monkeypatch, tmp_path):
    """The script in a folder with a benchmark that prints its arguments."""
    module = load_benchmark("run_all")
    (tmp_path / "bench.py").write_text(WRITES)
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    plan = {
        "long": Planned("bench.py --k 8", 9),
        "bad": Planned("bench.py --fail", 2),
        "short": Planned("bench.py 'a b'", 1),
    }
    monkeypatch.setattr(module, "read_plan", lambda: plan)
    return module


def test_all_run_shortest_first_and_a_failure_is_named(run_all, tmp_path, capfd):
    left = tmp_path / "work_dirs" / "records" / "long" / "weights.pth"
    left.parent.mkdir(parents=True)
    left.touch()
    with pytest.raises(SystemExit, match="1"):
        run_all.main([])
    out, err = capfd.readouterr()
    assert [line for line in out.splitlines() if line.startswith("ran")] == [
        "ran ['a b', '--record', 'short']",
        "ran ['--fail', '--record', 'bad']",
        "ran ['--k', '8', '--record', 'long']",
    ]
    assert "12 min together" in out and "failed: bad" in err
    assert not left.exists()


def test_only_what_is_named_or_missing(run_all, tmp_path, capfd):
    run_all.main(["long"])
    assert capfd.readouterr().out.count("ran [") == 1
    (tmp_path / "results").mkdir()
    for name in ("long", "bad"):
        (tmp_path / "results" / f"{name}.json").touch()
    run_all.main(["--missing"])
    assert "ran ['a b', '--record', 'short']" in capfd.readouterr().out
    run_all.main(["--list"])
    out = capfd.readouterr().out
    assert "ran" not in out.split() and "9 min  python bench.py --k 8 --record long" in out


def test_a_name_that_is_not_planned(run_all, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_all.main(["shrot"])
    assert "'shrot' is not in records.yaml; did you mean 'short'?" in capsys.readouterr().err
