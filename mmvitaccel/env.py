"""``python -m mmvitaccel.env``: check the installed packages and print how to fix problems.

Packages are looked up by their import name, so that forks with another distribution name are found.
Only the standard library is needed. The exit status is 0 if an EfficientViT detector can be trained
and tested, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from mmvitaccel.compat.mmcv_build import rebuild_command
from mmvitaccel.version import __version__

MAIN_JOB = "the main job (train and test an EfficientViT detector)"


@dataclass(frozen=True)
class Package:
    """Known facts about one package.

    Args:
        module: Import name.
        tested: Versions with which the test suite passed.
        install: Arguments of ``pip install``.
        lowest: First version that works.
        below: First later version that is known not to work, or None.
        why: Where this limit comes from.
        needed: Whether the main job needs it.
        fork: The same of the fork named onedl-*, or nothing.
    """

    module: str
    tested: tuple[str, ...]
    install: str
    lowest: str = "0"
    below: str | None = None
    why: str = ""
    needed: bool = True
    fork: str = ""

    def wanted(self) -> str:
        """Return what to install: the fork beside other forks, which refuse the official ones."""
        return self.fork if self.fork and forks() else self.install


PACKAGES = (
    Package("torch", ("2.14.1", "2.1.2"), "torch==2.14.1 torchvision==0.29.1", lowest="2.1"),
    Package("torchvision", ("0.29.1", "0.16.2"), "torchvision==0.29.1", lowest="0.16"),
    Package("numpy", ("1.26.4",), "numpy==1.26.4"),
    Package("cv2", ("4.11.0",), "opencv-python==4.11.0.86 opencv-contrib-python==4.11.0.86"),
    Package(
        "mmengine",
        ("0.10.7",),
        "mmengine==0.10.7",
        "0.7.1",
        "1.0.0",
        "mmdet 3.3 asserts it",
        fork="onedl-mmengine==0.10.12",
    ),
    Package("mmcv", ("2.1.0",), "mmcv-lite==2.1.0", lowest="2.0.0", fork="onedl-mmcv==2.3.6"),
    Package("mmdet", ("3.3.0",), "mmdet==3.3.0", lowest="3.0", fork="onedl-mmdetection==3.5.1"),
    Package("pycocotools", ("2.0.11",), "pycocotools==2.0.11"),
    Package("mmaction", ("1.2.0",), "mmaction2==1.2.0", lowest="1.0", needed=False),
    Package("timm", ("1.0.31",), "timm==1.0.31", lowest="1.0", needed=False),
    Package(
        "mmpretrain",
        ("1.2.0",),
        "mmpretrain==1.2.0",
        lowest="1.0",
        needed=False,
        fork="onedl-mmpretrain==1.3.6",
    ),
)
# The packages that are installed as a set: the official ones, or the forks named onedl-*.
OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmaction", "mmpretrain")


@dataclass(frozen=True)
class MmcvLimit:
    """A package that refuses mmcv from some version on, with an assertion when it is imported.

    Args:
        module: Import name of the package.
        name: Name of its distribution.
        versions: Its versions that do so, from the first to below the second.
        refused: The first version of mmcv that it refuses.
    """

    module: str
    name: str
    versions: tuple[str, str]
    refused: str

    def applies(self, version: str) -> bool:
        """Check whether a version of the package refuses the mmcv that is installed.

        Args:
            version: Version of the package.
        """
        first, end = map(number, self.versions)
        return first <= number(version) < end and number(version_of("mmcv")) >= number(self.refused)

    def sentence(self, version: str) -> str:
        """Return what the package refuses and what is installed.

        Args:
            version: Version of the package.
        """
        return (
            f"{self.name} {version} refuses mmcv {self.refused} and newer, "
            f"and mmcv {version_of('mmcv')} is installed"
        )


MMCV_LIMITS = {
    limit.module: limit
    for limit in (
        MmcvLimit("mmdet", "mmdet", ("3.0", "3.4"), "2.2.0"),
        MmcvLimit("mmaction", "mmaction2", ("1.0", "1.3"), "2.2.0"),
        MmcvLimit("mmpretrain", "mmpretrain", ("1.0", "1.4"), "2.4.0"),
    )
}


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Args:
        name: What was checked.
        found: What was found.
        verdict: ``ok``, ``untested``, ``missing``, ``wrong`` or ``note``.
        remark: Why.
        fix: Command that fixes it, or nothing.
        stops: Whether it prevents the main job.
    """

    name: str
    found: str
    verdict: str
    remark: str = ""
    fix: str = ""
    stops: bool = False


def number(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``2.1.0rc1+cu121`` is (2, 1, 0).

    Args:
        version: Version string of a package.
    """
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[a-z+]", version)[0]))


@lru_cache(maxsize=1)
def all_distributions() -> Mapping[str, list[str]]:
    """Return the distributions of every import name; empty before Python 3.10."""
    return getattr(importlib.metadata, "packages_distributions", dict)()


def distributions_of(module: str) -> list[str]:
    """Return the names of the distributions that installed a module, without repetition.

    Args:
        module: Import name.
    """
    return sorted(set(all_distributions().get(module, ())))


def import_quietly(module: str) -> str:
    """Import a module and return the error in one line, or an empty string.

    Args:
        module: Dotted name.
    """
    noise = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(noise):
                import_module(module)
    # reason: a broken installation fails in any way, a wrong binary with an OSError for one.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return ""


def version_of(module: str) -> str:
    """Return a module's ``__version__``, else its distribution's version, else ``?``.

    Args:
        module: Import name; it need not be importable.
    """
    stated = getattr(sys.modules.get(module), "__version__", None)
    names = distributions_of(module)
    return str(stated or (importlib.metadata.version(names[0]) if names else "?"))


def inspect_package(package: Package) -> Row:
    """Find and import one package and compare its version with the known ones.

    Args:
        package: The package.
    """
    needed = package.needed
    if find_spec(package.module) is None:
        if not needed:
            remark = "not installed; optional"
            limit, would_be = MMCV_LIMITS.get(package.module), package.install.partition("==")[2]
            if limit is not None and limit.applies(would_be):
                remark += f"; {limit.sentence(would_be)}"
            return Row(package.module, "-", "note", remark)
        fix = f"pip install {package.wanted()}"
        return Row(package.module, "-", "missing", "not installed", fix, True)
    error = import_quietly(package.module)
    version = version_of(package.module)
    names = [n for n in distributions_of(package.module) if n != package.module]
    found = f"{version} ({', '.join(names)})" if names else version
    too_old = version != "?" and number(version) < number(package.lowest)
    if too_old or (package.below and number(version) >= number(package.below)):
        wanted = f"wants >= {package.lowest}" + (f", < {package.below}" if package.below else "")
        remark = wanted + (f": {package.why}" if package.why else "")
        return Row(
            package.module, found, "wrong", remark, replacing(package, forks=forks()), needed
        )
    limit = MMCV_LIMITS.get(package.module)
    if limit is not None and limit.applies(version):
        fix = replacing(*in_place_of_this_mmcv())
        return Row(package.module, found, "wrong", limit.sentence(version), fix, needed)
    if error:
        absent = re.search(r"No module named '(\w+)", error)
        known = absent is not None and absent[1] in {p.module for p in PACKAGES}
        # reason: where another package of the table is what lacks, its own row has the command.
        fix = "" if known else f"pip install --force-reinstall --no-deps {package.wanted()}"
        return Row(package.module, found, "wrong", error, fix, needed)
    if version.split("+")[0] in package.tested:
        return Row(package.module, found, "ok")
    tested = " or ".join(package.tested)
    remark = f"tested with {tested}" if tested else "never tested"
    return Row(package.module, found, "untested", remark)


def in_place_of_this_mmcv() -> list[Package]:
    """Return mmcv and those of OpenMMLab's packages that a fork, made for its mmcv, installed."""
    return [
        package
        for package in PACKAGES
        if package.module == "mmcv" or (package.module in OPENMMLAB and strangers(package))
    ]


def forks() -> bool:
    """Check whether forks named onedl-* are installed in the place of the official packages."""
    return any(n.startswith("onedl-") for m in OPENMMLAB for n in distributions_of(m))


def strangers(package: Package, install: str = "") -> list[str]:
    """Return the installed distributions of a package that a ``pip install`` does not name.

    Args:
        package: The package.
        install: What is installed; by default the official package.
    """
    install = install or package.install
    return [n for n in distributions_of(package.module) if f"{n}==" not in install]


def replacing(*packages: Package, forks: bool = False) -> str:
    """Return the command that replaces the installed versions.

    Args:
        packages: The packages.
        forks: Whether the forks named onedl-* are to be installed, else the tested packages.
    """
    installs = [(forks and package.fork) or package.install for package in packages]
    pairs = zip(packages, installs)
    others = [name for package, install in pairs for name in strangers(package, install)]
    remove = f"pip uninstall -y {' '.join(others)} && " if others else ""
    return f"{remove}pip install {' '.join(installs)}"


def inspect_python() -> Row:
    """Compare the interpreter with the tested version."""
    found = sys.version.split()[0]
    if sys.version_info[:2] != (3, 11):
        return Row("python", found, "untested", "tested with 3.11")
    return Row("python", found, "ok")


def inspect_torchvision_pair() -> Iterable[Row]:
    """Check that torchvision was built for this torch: 0.(N + 15) goes with 2.N."""
    if not {"torch", "torchvision"} <= sys.modules.keys():
        return
    torch, vision = number(version_of("torch")), number(version_of("torchvision"))
    if torch[0] == 2 and vision[:2] != (0, torch[1] + 15):
        wanted = f"0.{torch[1] + 15}"
        yield Row(
            "torch + torchvision",
            f"{version_of('torch')} + {version_of('torchvision')}",
            "wrong",
            f"torch 2.{torch[1]} goes with torchvision {wanted}",
            f'pip install "torchvision=={wanted}.*"',
            True,
        )


def inspect_doubles() -> Iterable[Row]:
    """Report OpenMMLab's packages that two distributions installed, as mmcv and mmcv-lite do."""
    for package in (p for p in PACKAGES if p.module in OPENMMLAB):
        names = distributions_of(package.module)
        if len(names) > 1:
            fix = f"pip uninstall -y {' '.join(names)} && pip install {package.install}"
            remark = "they overwrite each other's files"
            found = " + ".join(names)
            yield Row(f"{package.module} twice", found, "wrong", remark, fix, package.needed)


def inspect_mmcv_operators() -> Iterable[Row]:
    """Report where mmcv's operators come from."""
    if "mmcv" not in sys.modules:
        return
    spec = find_spec("mmcv._ext")
    if spec is None or "stand_ins" in str(spec.origin):
        remark = "nms, roi_align and others from torchvision; the rest raise when called"
        yield Row("mmcv operators", "stand-in", "ok", remark)
        return
    error = import_quietly("mmcv._ext")
    if error:
        remark = f"{error}; mmcv was compiled for another torch"
        yield Row("mmcv operators", "compiled", "wrong", remark, rebuild_command(), True)
    else:
        yield Row("mmcv operators", "compiled", "ok", "used as they are")


def inspect_surroundings() -> Iterable[Row]:
    """Report optional parts that explain many problems."""
    if find_spec("pkg_resources") is None:
        remark = "stock mm tools need it for `mmdet::` bases; under mmvitaccel they do not"
        yield Row("pkg_resources", "-", "note", remark, 'pip install "setuptools<81"')
    else:
        yield Row("pkg_resources", f"setuptools {version_of('setuptools')}", "ok")
    spec = find_spec("importlib_metadata")
    if spec is None or "stand_ins" in str(spec.origin):
        remark = "mmaction2 imports it; the standard library stands in"
        yield Row("importlib_metadata", "stand-in", "ok", remark)
    else:
        yield Row("importlib_metadata", version_of("importlib_metadata"), "ok")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    use = "optional: compiles kernels where no prebuilt ones fit, and mmcv's own operators"
    yield Row("C++ compiler", compiler or "-", "note", use)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        yield inspect_kernels()
        built = f"torch for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU-only torch"
        count = torch.cuda.device_count()
        device = torch.cuda.get_device_name(0) if count else "no CUDA device, it runs on the CPU"
        yield Row("CUDA", f"{count} device(s)", "note", f"{built}; {device}")


def inspect_kernels() -> Row:
    """Report which compiled kernels run on a CPU, and why these; they are compiled if need be."""
    from mmvitaccel.core.kernels.library.choice import chosen

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the row says it
            choice = chosen()
    except ValueError as error:
        return Row("kernels", "-", "wrong", str(error))
    slower = "" if choice.library else "; torch's operators compute the same on a CPU, more slowly"
    return Row(
        "kernels", choice.name or "-", "ok" if choice.library else "note", choice.why + slower
    )


def inspect_imports() -> Iterable[Row]:
    """Import the main job's modules; versions alone do not reveal a broken installation."""
    for module, needed in (
        ("mmdet.apis", True),
        ("mmvitaccel.models", True),
        ("mmaction.apis", False),
    ):
        if find_spec(module.partition(".")[0]) is None:
            continue
        error = import_quietly(module)
        if error:
            yield Row(f"import {module}", "-", "wrong", error, stops=needed)
        else:
            yield Row(f"import {module}", "works", "ok")


def inspect() -> list[Row]:
    """Return the whole report."""
    rows = [inspect_python(), Row("mmvitaccel", __version__, "ok")]
    rows += [inspect_package(package) for package in PACKAGES]
    rows += [
        *inspect_torchvision_pair(),
        *inspect_doubles(),
        *inspect_mmcv_operators(),
        *inspect_surroundings(),
    ]
    # If a package is missing or wrong, its own row says more than a failing import.
    return rows if any(row.stops for row in rows) else [*rows, *inspect_imports()]


def render(rows: list[Row]) -> str:
    """Return the report as an aligned table, followed by the commands and a summary line.

    Args:
        rows: What :func:`inspect` found.
    """
    name, found = (max(len(getattr(row, key)) for row in rows) for key in ("name", "found"))
    lines = [
        f"{row.name:<{name}}  {row.found:<{found}}  {row.verdict:<8}  {row.remark}".rstrip()
        for row in rows
    ]
    fixes = [f"  {row.name}: {row.fix}" for row in rows if row.fix]
    if fixes:
        lines += ["", "To fix:", *fixes]
    stopping = [row.name for row in rows if row.stops]
    state = f"cannot run because of: {', '.join(stopping)}" if stopping else "can run"
    return "\n".join([*lines, "", f"{MAIN_JOB[0].upper()}{MAIN_JOB[1:]} {state}."])


def main() -> int:
    """Print the report; return the exit status."""
    argparse.ArgumentParser(prog="python -m mmvitaccel.env", description=__doc__).parse_args()
    rows = inspect()
    print(render(rows))
    return int(any(row.stops for row in rows))


if __name__ == "__main__":
    sys.exit(main())
