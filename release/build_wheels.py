"""Build the wheels: the plain one with kernels made ahead in it, for each machine.

    python release/build_wheels.py                       # both, into dist/
    python release/build_wheels.py --machines x86_64     # one

Kernels for another machine than this one need a cross compiler, `aarch64-linux-gnu-g++` for one.
The libraries need no Python, no torch and no OpenMP runtime, so a wheel serves every version of
them. Its name promises glibc 2.28 and newer: each library is read for the versions of the symbols
that it asks for, and refused if one is newer.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From its own folder, since the package wants torch, which building does not
sys.path.insert(0, str(ROOT / "mmvitaccel" / "core" / "kernels"))

from library.build import compiled  # noqa: E402
from library.instruction_sets import INSTRUCTION_SETS, InstructionSet  # noqa: E402

PLATFORM = "manylinux_2_28"
#: The newest that this platform has (PEP 600 and the tables of auditwheel).
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}
PROVIDED = re.compile(r"lib(c|m|stdc\+\+|gcc_s|pthread|dl)\.so\.\d+|ld-linux-.*\.so\.\d+")
PREBUILT = "mmvitaccel/core/kernels/prebuilt"


def main(argv: list[str] | None = None) -> None:
    """Build the wheels and print their names."""
    machines = sorted({wanted.machine for wanted in INSTRUCTION_SETS})
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machines", nargs="+", choices=machines, default=machines)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="FOLDER")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        plain = build_plain(Path(folder))
        for machine in args.machines:
            wanted = [s for s in INSTRUCTION_SETS if s.machine == machine]
            print(build_wheel(plain, wanted, args.into), flush=True)


def build_plain(folder: Path) -> Path:
    """The wheel without kernels, from a copy: what an earlier build left is not taken along."""
    copy = folder / "source"
    leave = ("[.]*", "build", "dist", "data", "work_dirs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*leave))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, copy], check=True)
    (wheel,) = folder.glob("*-none-any.whl")
    return wheel


def build_wheel(plain: Path, wanted: list[InstructionSet], into: Path) -> Path:
    """The same with kernels for some instruction sets of one machine."""
    tag = f"{PLATFORM}_{wanted[0].machine}"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "wheel", "unpack", "-d", folder, plain],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (unpacked,) = Path(folder).iterdir()
        (unpacked / PREBUILT).mkdir()
        for instruction_set in wanted:
            library = compiled(compiler_for(instruction_set.machine), *instruction_set.flags)
            check_symbols(library)
            shutil.copy(library, unpacked / PREBUILT / f"{instruction_set.name}.so")
        (about,) = unpacked.glob("*.dist-info/WHEEL")
        text = about.read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        about.write_text(text.replace("py3-none-any", f"py3-none-{tag}"))
        into.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "wheel", "pack", "-d", into, unpacked],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return into / plain.name.replace("none-any", f"none-{tag}")


def compiler_for(machine: str) -> str:
    """Path of the compiler that makes programs for a machine."""
    name = "c++" if machine == platform.machine() else f"{machine}-linux-gnu-g++"
    path = shutil.which(name)
    if path is None:
        package = f"g++-{machine.replace('_', '-')}-linux-gnu"
        raise SystemExit(
            f"build_wheels: {name} is not installed; install it (Debian: apt-get install "
            f"{package}) or leave {machine} out with --machines."
        )
    return path


def check_symbols(library: Path) -> None:
    """Stop if a library asks for more than the platform of its wheel has."""
    needed = symbol_versions(library)
    newer = [
        f"{name}_{'.'.join(map(str, version))}"
        for name, version in needed.items()
        if version > NEWEST.get(name, (0,))
    ]
    foreign = [name for name in needed_libraries(library) if not PROVIDED.fullmatch(name)]
    if newer or foreign:
        raise SystemExit(
            f"build_wheels: {library} needs {', '.join(newer + foreign)}, which {PLATFORM} does "
            "not have; build with an older system or compiler."
        )


def symbol_versions(library: Path) -> dict[str, tuple[int, ...]]:
    """The newest version of each library's symbols that are asked for: GLIBC to (2, 27), say."""
    newest: dict[str, tuple[int, ...]] = {}
    for name, version in re.findall(r"@([A-Z]+)_([\d.]+)", _readelf("--dyn-syms", library)):
        number = tuple(map(int, version.split(".")))
        newest[name] = max(newest.get(name, ()), number)
    return newest


def needed_libraries(library: Path) -> list[str]:
    """Names of the libraries that it is linked with."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", _readelf("--dynamic", library))


def _readelf(option: str, library: Path) -> str:
    command = ["readelf", "--wide", option, library]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
