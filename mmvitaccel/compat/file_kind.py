"""Detects files that are not checkpoints from their first bytes."""

from __future__ import annotations

_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"PK\x05\x06": "an empty zip archive",
}
_TAR_MARK = slice(257, 262)  # of a tar's first header


def describe_kind(start: bytes) -> str | None:
    """Describe a file that is often mistaken for a checkpoint, and what to do about it.

    Args:
        start: Its first bytes; at least 262 to detect a tar archive.

    Returns:
        The end of a sentence, or None for a checkpoint or an unknown kind.
    """
    if start.startswith(_LFS):
        return "a Git LFS pointer; run 'git lfs pull' where it comes from to get the file itself"
    if start.lstrip().lower().startswith(_PAGES):
        begin = start.lstrip()[:15]
        return f"a web page, it begins with {begin!r}; delete it and download again"
    for mark, kind in _ARCHIVES.items():
        if start.startswith(mark):
            return f"{kind}; unpack it and give the file of weights inside"
    if start[_TAR_MARK] == b"ustar":
        return "a tar archive; unpack it and give the file of weights inside"
    return None
