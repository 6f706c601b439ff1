"""Optional packages: one sentence that names the ``pip install`` where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from mmvitaccel.errors import UserError


def require(extra: str, *packages: str) -> None:
    """Check that the packages of an extra can be imported.

    Args:
        extra: Name of the extra, as in ``pip install 'mmvitaccel[deploy]'``; its pinned versions
            are in ``requirements/<extra>.txt``.
        packages: Top-level import names that the caller needs.

    Raises:
        UserError: A package is not installed.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{' and '.join(missing)} {verb} not installed: pip install 'mmvitaccel[{extra}]' "
            f"(in a checkout: pip install -r requirements/{extra}.txt)"
        )
