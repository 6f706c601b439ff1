"""Reading of parts of a COCO json, which can have hundreds of megabytes."""

from __future__ import annotations

import codecs
import json
import mmap
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

_FIRST_PIECE = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_CATEGORY = re.compile(rb'"category_id"\s*:\s*("(?:[^"\\]|\\.)*"|[^\s,}\]]+)')


def read_list(path: str, key: str) -> list[dict[str, Any]] | None:
    """Read the list of records under a top-level key.

    Args:
        path: Path of a json file.
        key: ``categories``, ``images`` or ``annotations``.

    Returns:
        The list; None if the file has no list of records there.
    """
    return _read_list(os.path.realpath(path), os.stat(path).st_mtime_ns, key)


# Cached, because train, val and evaluators often use the same file.
@lru_cache(maxsize=8)
def _read_list(path: str, changed: int, key: str) -> list[dict[str, Any]] | None:
    if not os.path.getsize(path):
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in re.finditer(rb'"%s"\s*:\s*(?=\[)' % key.encode(), content):
            value = _decode(content, found.end())
            if isinstance(value, list) and all(isinstance(item, dict) for item in value):
                return value
    return None


def each_record(path: str, key: str) -> Iterator[Any]:
    """Yield the items of the list under a top-level key, without loading all of them.

    It stops at invalid json; the run reports the error when it loads the file.

    Args:
        path: A json file.
        key: See :func:`read_list`.
    """
    if not os.path.getsize(path):
        return
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = re.search(rb'"%s"\s*:\s*\[' % key.encode(), content)
            if found is None:
                return
            file.seek(found.end())
        yield from _items(file)


def is_listed(path: str, key: str) -> bool:
    """Whether a key of a json is followed by a list, if the json has the key at all.

    Args:
        path: A json file.
        key: See :func:`read_list`.
    """
    if not os.path.getsize(path):
        return True
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        listed = re.search(rb'"%s"\s*:\s*\[' % key.encode(), content)
        return listed is not None or re.search(rb'"%s"\s*:' % key.encode(), content) is None


def _items(file: BinaryIO) -> Iterator[Any]:
    """Yield the items of a list whose bracket has been read, up to its end or to invalid json."""
    decoder, characters = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")("ignore")
    text, size = "", _FIRST_PIECE
    while piece := file.read(size):
        text, at = text + characters.decode(piece), 0
        while True:
            at = _BETWEEN.match(text, at).end()
            if text.startswith("]", at):
                return
            try:
                item, at = decoder.raw_decode(text, at)
            except RecursionError:
                return
            except ValueError:
                break  # the piece ends within this item
            yield item
        # Doubling avoids that a long item is decoded again for each piece.
        size = size if at else 2 * size
        text = text[at:]


def category_ids(path: str) -> set[Any]:
    """Return the distinct values of ``category_id`` in a json, without invalid ones."""
    return set(_category_ids(os.path.realpath(path), os.stat(path).st_mtime_ns))


@lru_cache(maxsize=8)
def _category_ids(path: str, changed: int) -> frozenset[Any]:
    if not os.path.getsize(path):
        return frozenset()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        texts = {found[1] for found in _CATEGORY.finditer(content)}
    return frozenset(value for value in map(_value, texts) if isinstance(value, (int, float, str)))


def _value(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _decode(content: mmap.mmap, start: int) -> Any:
    """Decode the json value at a position, reading increasingly large pieces."""
    size = _FIRST_PIECE
    while True:
        piece = content[start : start + size]
        try:
            return json.JSONDecoder().raw_decode(piece.decode(errors="ignore"))[0]
        except RecursionError:
            return None  # not annotations; the run reports it when it loads the file
        except ValueError:
            if len(piece) < size:
                return None
            size *= 8
