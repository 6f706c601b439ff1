"""Optional packages: the ``pip install`` where one is missing, and their telemetry off."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from mmvitaccel.errors import UserError

# Read by the packages when they are imported, and by the processes that they start.
_TELEMETRY = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",  # has no other effect in NNCF than to send nothing
    "RAY_USAGE_STATS_ENABLED": "0",
}


def switch_off_telemetry() -> None:
    """Keep OpenVINO, NNCF, Ray, Gradio and Hugging Face's libraries from reporting their use.

    Call it before they are imported. A variable that is already set in the environment stays as it
    is: whoever wants to report, says so there.
    """
    for name, value in _TELEMETRY.items():
        os.environ.setdefault(name, value)
    # OpenVINO reads no variable; it sends nothing where this package cannot be imported
    sys.modules.setdefault("openvino_telemetry", None)


def require(extra: str, *packages: str) -> None:
    """Check that the packages of an extra can be imported, and switch their telemetry off.

    Call it before the import: the packages read the settings when they are imported.

    Args:
        extra: Name of the extra, as in ``pip install 'mmvitaccel[deploy]'``; its pinned versions
            are in ``requirements/<extra>.txt``.
        packages: Top-level import names that the caller needs.

    Raises:
        UserError: A package is not installed.
    """
    switch_off_telemetry()
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{' and '.join(missing)} {verb} not installed: pip install 'mmvitaccel[{extra}]' "
            f"(in a checkout: pip install -r requirements/{extra}.txt)"
        )
