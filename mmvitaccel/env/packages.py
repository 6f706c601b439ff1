"""Supported versions of the packages, and the commands that install and replace them."""

from __future__ import annotations

from dataclasses import dataclass

from mmvitaccel.env import installed
from mmvitaccel.env.installed import number


@dataclass(frozen=True)
class Package:
    """A package and its supported versions.

    Args:
        module: Import name.
        tested: Versions with which the test suite passed.
        install: Arguments of ``pip install``.
        lowest: First version that works.
        below: First later version that does not work, or None.
        why: Reason for that limit.
        needed: Whether the main job needs the package.
        fork: Arguments of ``pip install`` for the fork named onedl-*; empty if there is none.
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
        """Return the arguments of ``pip install``: the fork's if other forks are installed.

        The forks do not work together with the official packages.
        """
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
# These are installed as a set: all official packages, or all forks named onedl-*.
OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmaction", "mmpretrain")


@dataclass(frozen=True)
class MmcvLimit:
    """A package that asserts an upper limit of mmcv's version when it is imported.

    Args:
        module: Import name of the package.
        name: Name of its distribution.
        versions: Versions of the package with this limit: from the first to below the second.
        refused: First version of mmcv that the package refuses.
    """

    module: str
    name: str
    versions: tuple[str, str]
    refused: str

    def applies(self, version: str) -> bool:
        """Check whether a version of the package refuses the installed mmcv.

        Args:
            version: Version of the package.
        """
        first, end = map(number, self.versions)
        return first <= number(version) < end and number(installed.version_of("mmcv")) >= number(
            self.refused
        )

    def sentence(self, version: str) -> str:
        """Return a clause that names the refused and the installed version of mmcv.

        Args:
            version: Version of the package.
        """
        return (
            f"{self.name} {version} refuses mmcv {self.refused} and newer, "
            f"and mmcv {installed.version_of('mmcv')} is installed"
        )


MMCV_LIMITS = {
    limit.module: limit
    for limit in (
        MmcvLimit("mmdet", "mmdet", ("3.0", "3.4"), "2.2.0"),
        MmcvLimit("mmaction", "mmaction2", ("1.0", "1.3"), "2.2.0"),
        MmcvLimit("mmpretrain", "mmpretrain", ("1.0", "1.4"), "2.4.0"),
    )
}


def with_mmcv() -> list[Package]:
    """Return mmcv and the OpenMMLab packages to replace with it: the installed forks."""
    return [
        package
        for package in PACKAGES
        if package.module == "mmcv" or (package.module in OPENMMLAB and other_names(package))
    ]


def forks() -> bool:
    """Check whether forks named onedl-* are installed instead of the official packages."""
    return any(is_fork(name) for m in OPENMMLAB for name in installed.distributions_of(m))


def is_fork(name: str) -> bool:
    """Check whether a distribution is one of the forks named onedl-*.

    Args:
        name: Name of the distribution.
    """
    return name.startswith("onedl-")


def other_names(package: Package, install: str = "") -> list[str]:
    """Return the installed distributions of a package that ``pip install`` would not replace.

    Args:
        package: The package.
        install: Arguments of ``pip install``; by default those of the official package.
    """
    install = install or package.install
    return [n for n in installed.distributions_of(package.module) if f"{n}==" not in install]


def replacing(*packages: Package, forks: bool = False) -> str:
    """Return the command that replaces the installed versions.

    Args:
        packages: The packages.
        forks: Whether to install the forks named onedl-* instead of the official packages.
    """
    installs = [(forks and package.fork) or package.install for package in packages]
    pairs = zip(packages, installs)
    others = [name for package, install in pairs for name in other_names(package, install)]
    remove = f"pip uninstall -y {' '.join(others)} && " if others else ""
    return f"{remove}pip install {' '.join(installs)}"
