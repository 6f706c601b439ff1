"""Install a wheel where there is no compiler and see that its kernels run and are right.

    python release/check_wheel.py                   # that of dist/ for this machine
    python release/check_wheel.py WHEEL

The wheel goes into a new environment, which finds torch and pytest in the one that this runs in. In
it, with nothing on PATH and an empty cache, the environment report is printed, and the kernels are
compared with their naive references.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "core" / "kernels" / "test_against_naive.py"
# Ends with a message if it is not the wheel's kernels that run.
LOADED = """
import sys
from pathlib import Path
import mmvitaccel
from mmvitaccel.core.kernels.library.choice import chosen
home, choice = Path(mmvitaccel.__file__).parent, chosen()
if Path(sys.prefix) not in home.parents:
    sys.exit(f"the package is imported from {home}")
if choice.library is None or not choice.why.startswith(f"prebuilt: {home}"):
    sys.exit(f"the wheel's kernels are not used: {choice.why}")
print(f"kernels: {choice.name}, {choice.why}")
"""


def main(argv: list[str] | None = None) -> None:
    """Check a wheel; the exit status is 0 if its kernels are used and right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, nargs="?")
    wheel = parser.parse_args(argv).wheel or _of_this_machine()
    with tempfile.TemporaryDirectory() as folder:
        python = install(wheel, Path(folder).resolve() / "venv")
        environment = bare_environment(Path(folder).resolve())
        run(environment, python, "-I", "-c", LOADED)
        report = subprocess.run(
            [python, "-I", "-m", "mmvitaccel.env"],
            env=environment, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
        print(next(line for line in report.splitlines() if line.startswith("kernels")), flush=True)
        run(
            environment, python, "-I", "-m", "pytest", "-c", ROOT / "pyproject.toml",
            "-p", "no:cacheprovider", TESTS,
        )  # fmt: skip
        if any((Path(folder) / "cache").rglob("*.so")):
            sys.exit("something was compiled")


def install(wheel: Path, place: Path) -> Path:
    """A new environment with the wheel; the rest is that of this one. Returns its Python."""
    venv.create(place)
    python = place / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    subprocess.run([*command, "--no-deps", wheel], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # A line of a .pth file; the editable install among them is a .pth, which is not read
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def bare_environment(folder: Path) -> dict[str, str]:
    """Variables without a compiler, another copy of the package, or a full cache."""
    leave = ("CXX", "PYTHONPATH", "MMVITACCEL_KERNELS")
    kept = {name: value for name, value in os.environ.items() if name not in leave}
    (folder / "empty").mkdir()
    assert shutil.which("c++", path=str(folder / "empty")) is None
    return kept | {"PATH": str(folder / "empty"), "XDG_CACHE_HOME": str(folder / "cache")}


def run(environment: dict[str, str], *command: object) -> None:
    """Run a command and stop if it fails."""
    status = subprocess.run([str(part) for part in command], env=environment, cwd=ROOT).returncode
    if status:
        sys.exit(
            f"check_wheel: failed with status {status}: {' '.join(map(str, command[1:4]))} ..."
        )


def _of_this_machine() -> Path:
    found = sorted((ROOT / "dist").glob(f"*_{platform.machine()}.whl"))
    if not found:
        sys.exit(f"check_wheel: dist/ has no wheel for {platform.machine()}; run `make wheel`.")
    return max(found, key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    main()
