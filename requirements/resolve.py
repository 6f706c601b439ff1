"""What pip would install for requirement files, from the package index alone: nothing is installed.

Wheels on a local disk and extra indexes that this machine's pip is set up with are left out, so
that versions and hashes are those of the index.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parent
# An older pip downloads gigabytes to read what the index says beside each file
PIP = "pip==26.3"
DEFAULT = ("default", "mmpretrain", "test")  # what `make test` installs
EXTRAS = ("app", "benchmarks", "browser", "deploy", "docs", "hosts", "serve", "video")


def platform_name() -> str:
    """Return this platform as the lock's file name has it, as ``linux-x86_64-py311``."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return f"{platform.system().lower()}-{platform.machine().lower()}-{version}"


def normalized(name: str) -> str:
    """Return a distribution's name as indexes compare it: ``Jinja2`` as ``jinja2``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(*names: str) -> list[dict[str, Any]]:
    """Resolve ``requirements/<name>.txt`` of all names together for this Python and platform.

    Returns:
        The ``install`` items of pip's installation report: each distribution's ``metadata`` and
        ``download_info`` (address and hashes of its archive), sorted by name.

    Raises:
        SystemExit: pip failed; its own message is printed above. Exit status 2.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip"]
        report = Path(folder, "report.json")
        steps = (
            [*pip, "install", "--quiet", PIP],
            [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", f"--report={report}"]
            + [f"--requirement={REQUIREMENTS / name}.txt" for name in names],
        )
        away = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT")
        env = {key: value for key, value in os.environ.items() if key not in away}
        env["PIP_CONFIG_FILE"] = os.devnull
        for step in steps:
            if subprocess.run(step, env=env).returncode:
                print(f"pip could not resolve {', '.join(names)}; nothing was written.")
                raise SystemExit(2)
        items = json.loads(report.read_text())["install"]
    return sorted(items, key=lambda item: normalized(item["metadata"]["name"]))
