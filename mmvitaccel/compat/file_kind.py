"""What a file is that should have been a checkpoint, told from its first bytes."""

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
    """Say what a file is and what to do, if it is of a kind that is mistaken for a checkpoint.

    Args:
        start: Its first bytes; a tar is known by the 262nd.

    Returns:
        The end of a sentence, or None for a checkpoint and for anything unknown.
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
