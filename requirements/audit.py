"""Look the lock's versions up in the index's list of known vulnerabilities, with pip-audit.

Run it as ``make audit``. Exit status: 0 none is known, 1 some are, 2 it could not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from resolve import REQUIREMENTS, platform_name

PIP_AUDIT = "pip-audit==2.10.1"


def reason_of(stderr: str) -> str:
    """Return the last line of what a command that failed said."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def audit(lock: Path, folder: Path) -> list[dict]:
    """Return pip-audit's record of every distribution of a lock.

    Raises:
        OSError: pip-audit could not be installed or could not reach the list.
    """
    venv.create(folder, with_pip=True)
    python, report = str(folder / "bin" / "python"), folder / "report.json"
    audited = [f"--requirement={lock}", "--disable-pip", "--require-hashes"]
    written = ["--format=json", f"--output={report}", "--progress-spinner=off"]
    steps = (
        [python, "-m", "pip", "install", "--quiet", PIP_AUDIT],
        [python, "-m", "pip_audit", *audited, *written],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        # pip-audit gives 1 for a vulnerability and for any failure; only one has a report
        if done.returncode and not report.is_file():
            raise OSError(reason_of(done.stderr))
    return json.loads(report.read_text())["dependencies"]


def main() -> int:
    """Audit this platform's lock and say what is known."""
    lock = REQUIREMENTS / "lock" / f"{platform_name()}.txt"
    if not lock.is_file():
        print(f"{lock} is not there: no lock was made for this platform; run `make lock`.")
        return 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = audit(lock, Path(folder))
    except OSError as error:
        print(f"Nothing was audited: pip-audit could not look up {lock.name} ({error}).")
        return 2
    skipped = [entry for entry in found if "skip_reason" in entry]
    vulnerable = [entry for entry in found if entry.get("vulns")]
    if len(skipped) == len(found):
        reason = skipped[0]["skip_reason"] if skipped else "it names no distribution"
        print(f"Nothing was audited: no version of {lock.name} could be looked up ({reason}).")
        return 2
    for entry in skipped:
        print(f"{entry['name']}: not audited ({entry['skip_reason']})")
    for entry in vulnerable:
        for known in entry["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no release"
            print(f"{entry['name']} {entry['version']}: {known['id']}, fixed in {fixed}")
    print(
        f"{lock.name}: {len(found) - len(skipped)} of {len(found)} distributions were looked up, "
        f"{len(vulnerable)} have known vulnerabilities"
    )
    if vulnerable:
        return 1
    return 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
