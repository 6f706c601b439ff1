"""Text that people bring, such as lists, tables and names of classes: one way of reading it.

It is UTF-8, with a byte order mark or without, and lines end in LF, CRLF or CR. What is of another
encoding is refused by name instead of being read as other characters.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

# The mark of UTF-32 begins as that of UTF-16 does
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LINE_END = re.compile(r"\r\n|\r|\n")
_MARK = "\ufeff"


def read_text(path: str | Path, error: type[Exception] = ValueError) -> str:
    """A file's text, without a byte order mark, its lines ending in LF.

    Args:
        path: An existing file.
        error: What is raised.

    Raises:
        Exception: ``error``: it is not UTF-8 text.
    """
    return decode_text(Path(path).read_bytes(), path, error)


def decode_text(content: bytes, path: str | Path, error: type[Exception] = ValueError) -> str:
    """The text of a file's content; see :func:`read_text`.

    Args:
        content: The bytes of the file.
        path: Of the file, for messages.
        error: What is raised.
    """
    reason = why_no_text(content)
    if reason is not None:
        raise error(f"{path} {reason}.")
    return _LINE_END.sub("\n", content.decode("utf-8-sig"))


def read_lines(path: str | Path, error: type[Exception] = ValueError) -> list[str]:
    """The lines of a file, without their ends and without blank ones at its end.

    Args:
        path: An existing file.
        error: What is raised.

    Raises:
        Exception: ``error``: it is not UTF-8 text.
    """
    # `splitlines` would also divide at form feeds and other marks, within names
    lines = read_text(path, error).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_lines_for_others(path: str | Path, error: type[Exception] = ValueError) -> list[str]:
    """The lines of a file that another package reads too, in UTF-8 and by LF alone.

    Blank lines at the end stay: others take them for entries.

    Args:
        path: An existing file.
        error: What is raised.

    Raises:
        Exception: ``error``: it is not UTF-8 text, or others would read it otherwise: it begins
            with a byte order mark, or has lines that end in CR.
    """
    content = Path(path).read_bytes()
    reason = why_no_text(content)
    text = "" if reason else content.decode("utf-8")
    lone = re.search(r"\r(?!\n)", text)
    if text.startswith(_MARK):
        reason = (
            "begins with a byte order mark, which becomes part of the first name; save it as UTF-8 "
            "without one"
        )
    elif lone:
        line = text.count("\n", 0, lone.start()) + 1
        reason = (
            f"has a carriage return (CR) without a line feed (LF) in line {line}, where one line "
            "would be taken for all that follow; save it with lines that end in LF"
        )
    if reason is not None:
        raise error(f"{path} {reason}.")
    # CRLF is left to those who strip lines, as these packages do
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def why_no_text(content: bytes) -> str | None:
    """Reason why bytes are not UTF-8 text, as the end of a sentence; None if they are."""
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if marked is not None:
        return f"is text in {marked}, as its byte order mark says; save it as UTF-8"
    if b"\0" in content:
        place = content.index(b"\0")
        return (
            f"has a zero byte at {place}, as have files that are no text, and text in UTF-16 "
            "without a mark; save it as text in UTF-8"
        )
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(content[: error.start].decode("latin-1"))) + 1
        return (
            f"is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}, in line "
            f"{line}; if it was saved in another encoding, such as Windows-1252 or GBK, save it as "
            "UTF-8"
        )
    return None
