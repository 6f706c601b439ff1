"""Files that are written whole or not at all, in folders that can take them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmvitaccel.errors import UserError


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when all of it is on the disk.

    It is written beside the place where it will lie, as ``NAME.part``. Whoever is killed on the way
    leaves what was there before, and a ``.part`` that the next write replaces.

    Raises:
        UserError: It cannot be written, for lack of space or of permission.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        _discard(part)
        raise UserError(
            f"{path}: it could not be written ({error.strerror or error}); make room or name "
            "another folder."
        ) from error
    except BaseException:
        _discard(part)
        raise


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, by which it is known again."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_folder(folder: str | Path, num_bytes: int, what: str) -> None:
    """Check, before any work, that a file of that size can be written into a folder.

    Args:
        folder: Need not be there yet; nothing is left behind.
        num_bytes: Size of what is to be written.
        what: Names it in the message.

    Raises:
        UserError: The folder cannot be made or written into, or its disk is too full.
    """
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    # Asked by name, since root may be allowed what the disk then refuses.
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        kind = "is not writable" if there.is_dir() else "is a file"
        raise UserError(f"{folder}: {what} cannot be written there, {there} {kind}; name another.")
    probe = there / f".mmvitaccel-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: {what} cannot be written there ({error.strerror or error}); name another."
        ) from error
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise UserError(
            f"{folder}: {what} takes {_megabytes(num_bytes)} and the disk has {_megabytes(free)} "
            "free; make room or name a folder on another disk."
        )


def _discard(part: Path) -> None:
    with suppress(OSError):  # The folder itself may be what is wrong
        part.unlink()


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MB"
