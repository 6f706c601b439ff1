"""Commands that compile mmcv's operators for the installed torch."""

from __future__ import annotations

import importlib.metadata

FORK = "onedl-mmcv"


def requirement() -> str:
    """The mmcv to compile: the installed version of the fork, else the tested version."""
    try:
        return f"{FORK}=={importlib.metadata.version(FORK)}"
    except importlib.metadata.PackageNotFoundError:
        return "mmcv==2.1.0"


def rebuild_command() -> str:
    """The command for an mmcv that was compiled for another torch."""
    return f"pip install --force-reinstall --no-deps {_BUILD} {requirement()}"


def advice() -> str:
    """Advice for an mmcv without compiled operators."""
    wanted = requirement()
    # mmcv 2.1.0 does not compile with newer ones; of the fork no limit is known
    torch = "" if wanted.startswith(FORK) else "torch 2.12 or older and "
    installed = FORK if wanted.startswith(FORK) else "mmcv-lite"
    return (
        f"install a compiled mmcv ({torch}a C++ compiler): pip uninstall -y {installed} && "
        f"pip install 'setuptools<81' wheel ninja && pip install {_BUILD} {wanted}"
    )


# Its setup.py needs pkg_resources and torch at build time; pip's cache may hold a build
# for another torch
_BUILD = "--no-cache-dir --no-build-isolation"
