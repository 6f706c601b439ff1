"""Comparison of the installed versions with the supported ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from mmvitaccel.env import installed
from mmvitaccel.env.installed import number
from mmvitaccel.env.packages import (
    MMCV_LIMITS,
    OPENMMLAB,
    PACKAGES,
    Package,
    forks,
    is_fork,
    replacing,
    with_mmcv,
)


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Args:
        name: Name of what was checked.
        found: Version or state that was found; ``-`` if there is none.
        verdict: ``ok``, ``untested``, ``missing``, ``wrong`` or ``note``.
        remark: Reason for the verdict.
        fix: Command that fixes the problem; empty if there is none.
        stops: Whether the problem prevents the main job.
    """

    name: str
    found: str
    verdict: str
    remark: str = ""
    fix: str = ""
    stops: bool = False


def inspect_package(package: Package) -> Row:
    """Find and import a package and compare its version with the supported ones.

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
    error = installed.import_quietly(package.module)
    version = installed.version_of(package.module)
    names = [n for n in installed.distributions_of(package.module) if n != package.module]
    found = f"{version} ({', '.join(names)})" if names else version
    too_old = version != "?" and number(version) < number(package.lowest)
    if too_old or (package.below and number(version) >= number(package.below)):
        range_ = f"must be >= {package.lowest}" + (f", < {package.below}" if package.below else "")
        remark = range_ + (f": {package.why}" if package.why else "")
        return Row(
            package.module, found, "wrong", remark, replacing(package, forks=forks()), needed
        )
    limit = MMCV_LIMITS.get(package.module)
    if limit is not None and limit.applies(version):
        fix = replacing(*with_mmcv())
        return Row(package.module, found, "wrong", limit.sentence(version), fix, needed)
    if error:
        absent = re.search(r"No module named '(\w+)", error)
        known = absent is not None and absent[1] in {p.module for p in PACKAGES}
        # If another package of the report is missing, that package's row has the command.
        fix = "" if known else f"pip install --force-reinstall --no-deps {package.wanted()}"
        return Row(package.module, found, "wrong", error, fix, needed)
    if version.split("+")[0] in package.tested:
        return Row(package.module, found, "ok")
    tested = " or ".join(package.tested)
    remark = f"tested with {tested}" if tested else "never tested"
    return Row(package.module, found, "untested", remark)


def inspect_python() -> Row:
    """Compare the interpreter with the tested version."""
    found = sys.version.split()[0]
    if sys.version_info[:2] != (3, 11):
        return Row("python", found, "untested", "tested with 3.11")
    return Row("python", found, "ok")


def inspect_torchvision_pair() -> Iterable[Row]:
    """Check that torchvision was built for the installed torch: 0.(N + 15) matches 2.N."""
    if not {"torch", "torchvision"} <= sys.modules.keys():
        return
    torch, vision = (
        number(installed.version_of("torch")),
        number(installed.version_of("torchvision")),
    )
    if torch[0] == 2 and vision[:2] != (0, torch[1] + 15):
        wanted = f"0.{torch[1] + 15}"
        yield Row(
            "torch + torchvision",
            f"{installed.version_of('torch')} + {installed.version_of('torchvision')}",
            "wrong",
            f"torch 2.{torch[1]} needs torchvision {wanted}",
            f'pip install "torchvision=={wanted}.*"',
            True,
        )


def inspect_doubles() -> Iterable[Row]:
    """Report OpenMMLab packages that two distributions installed, such as mmcv and mmcv-lite.

    The command installs the fork if another of these packages is installed as a fork only.
    """
    all_names = {module: installed.distributions_of(module) for module in OPENMMLAB}
    forked = {m for m, names in all_names.items() if names and all(map(is_fork, names))}
    for package in (p for p in PACKAGES if p.module in OPENMMLAB):
        names = all_names[package.module]
        if len(names) > 1:
            install = (forked and package.fork) or package.install
            fix = f"pip uninstall -y {' '.join(names)} && pip install {install}"
            remark = "they overwrite each other's files"
            found = " + ".join(names)
            yield Row(f"{package.module} twice", found, "wrong", remark, fix, package.needed)
