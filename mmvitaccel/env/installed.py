"""Installed distributions and versions by import name, and a check whether a module imports."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import re
import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module


def number(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 1, 0) for ``2.1.0rc1+cu121``.

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
    # A broken installation can raise anything; a wrong binary raises an OSError.
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
