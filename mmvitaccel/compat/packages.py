"""mmengine's package look-up with the standard library instead of ``pkg_resources``.

mmengine resolves ``mmdet::`` in a config's ``_base_`` with ``pkg_resources``. setuptools removed it
in version 82, and a new Python environment may not have setuptools at all.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def is_installed(package: str) -> bool:
    """Check whether a distribution or an importable package has this name.

    Args:
        package: Name of a distribution (``mmaction2``) or of a package (``mmaction``).
    """
    try:
        distribution(package)
    except PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """Return the folder of an installed package.

    Args:
        package: Name of a distribution or of a package.

    Raises:
        PackageNotFoundError: Neither has this name.
        RuntimeError: It is a namespace package, which has no single folder.
    """
    spec = find_spec(package) or find_spec(package2module(package))
    if spec is None:
        raise PackageNotFoundError(package)
    if spec.origin is None:
        raise RuntimeError(f"{package} is a namespace package, which has no one folder.")
    return str(Path(spec.origin).parent)


def package2module(package: str) -> str:
    """Return the importable name of a distribution.

    Args:
        package: Name of a distribution.

    Raises:
        PackageNotFoundError: There is none of this name.
        ValueError: It does not list its modules (no ``top_level.txt``).
    """
    names = (distribution(package).read_text("top_level.txt") or "").split()
    if not names:
        raise ValueError(f"cannot infer the module of {package}: it has no top_level.txt.")
    return names[0]


def replace_look_up(module: ModuleType) -> None:
    """Replace mmengine's functions with these, also where mmengine has already imported them.

    Args:
        module: ``mmengine.utils.package_utils``.
    """
    for function in (is_installed, get_installed_path, package2module):
        replaced = getattr(module, function.__name__)
        for holder in [m for n, m in sys.modules.items() if n.partition(".")[0] == "mmengine"]:
            if getattr(holder, function.__name__, None) is replaced:
                setattr(holder, function.__name__, function)
        setattr(module, function.__name__, function)
