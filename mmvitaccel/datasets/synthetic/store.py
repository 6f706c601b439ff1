"""A generated set on disk: written atomically, and reused if the settings are the same."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Callable

SETTINGS_FILE = "settings.json"


def write_set(
    out_dir: str | os.PathLike,
    settings: dict,
    fill: Callable[[Path], None],
    overwrite: bool = False,
) -> Path:
    """Create a directory with its content, or reuse one with the same settings.

    The content is written beside ``out_dir`` and renamed at the end, so that an interrupted run
    leaves no partial set.

    Args:
        out_dir: The directory.
        settings: Settings that determine the content; JSON types only.
        fill: Function that writes the content to a given directory.
        overwrite: Replace a set that was made with other settings.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ValueError: If ``out_dir`` holds something else.
    """
    target = Path(out_dir)
    if _is_reusable(target, settings, overwrite):
        return target
    # A name of its own, also where a run that was killed has left its part behind
    hidden = f".{target.name}.{os.getpid()}-{time.time_ns()}"
    partial = target.parent / f"{hidden}.partial"
    partial.mkdir(parents=True)
    try:
        fill(partial)
        # Written last; a directory with this file in it is complete
        (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        if target.exists():
            old = target.parent / f"{hidden}.old"
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def write_json(path: Path, content: dict) -> None:
    """Write compact JSON with the keys in their order: the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")))


def _is_reusable(target: Path, settings: dict, overwrite: bool) -> bool:
    if not target.exists():
        return False
    if not target.is_dir():
        raise ValueError(f"The set cannot be written: '{target}' is a file; name a directory.")
    recorded = target / SETTINGS_FILE
    if not recorded.is_file():
        if not any(target.iterdir()):
            return False
        raise ValueError(
            f"The set cannot be written: '{target}' is not empty and was not made by this "
            "generator; name another directory."
        )
    # Through JSON and back, for a tuple is read back as a list
    if json.loads(recorded.read_text()) == json.loads(json.dumps(settings)):
        return True
    if not overwrite:
        raise ValueError(
            f"'{target}' holds a set made with other settings (see its {SETTINGS_FILE}); name "
            "another directory, or ask for it to be overwritten."
        )
    return False
