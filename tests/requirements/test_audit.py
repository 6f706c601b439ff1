"""What ``make audit`` says and its exit status; pip-audit itself is not run."""

from __future__ import annotations

import pytest


@pytest.fixture
def audited(script, monkeypatch):
    module = script("audit")
    monkeypatch.setattr(module, "platform_name", lambda: "linux-x86_64-py311")

    def run(found) -> int:
        def audit(lock, folder):
            if isinstance(found, OSError):
                raise found
            return found

        monkeypatch.setattr(module, "audit", audit)
        return module.main()

    return run


CLEAN = {"name": "torch", "version": "2", "vulns": []}
KNOWN = {"name": "rich", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "lap", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([CLEAN], 0, "1 of 1 distributions were looked up, 0 have known"),
        ([CLEAN, KNOWN], 1, "rich 1: CVE-1, fixed in 1.1"),
        ([CLEAN, SKIPPED], 2, "lap: not audited (not found)"),
        ([CLEAN, SKIPPED], 2, "1 of 2 distributions were looked up, 0 have known"),
        ([SKIPPED], 2, "Nothing was audited: no version of linux-x86_64-py311.txt could"),
        ([], 2, "Nothing was audited: "),
        ([KNOWN, SKIPPED], 1, "lap: not audited"),
        (OSError("no route"), 2, "Nothing was audited: pip-audit could not look up linux-x86_64"),
    ],
)
def test_status_and_sentence(found, status, said, audited, capsys):
    assert audited(found) == status
    assert said in capsys.readouterr().out


def test_platform_without_a_lock(script, monkeypatch, capsys):
    module = script("audit")
    monkeypatch.setattr(module, "platform_name", lambda: "plan9-vax-py311")
    assert module.main() == 2
    assert "plan9-vax-py311.txt is not there: no lock was made" in capsys.readouterr().out


def test_reason_is_the_last_line(script):
    reason_of = script("audit").reason_of
    assert reason_of("Traceback\n  more\nConnectionError: x\n\n") == "ConnectionError: x"
    assert reason_of("") == "it said nothing"
