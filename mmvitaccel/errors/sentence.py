"""A mistake of a user's, said in one sentence; and errors' own messages."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable

# Characters; a path has rarely as many as the first, a sentence as the second.
_LONGEST_WORD = 300
_LONGEST = 1500


class UserError(Exception):
    """One sentence for the user: what is wrong, where, and what to do.

    Args:
        sentence: What is overlong in it, such as a value that is repeated, loses its middle.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(shorten(sentence))


def shorten(sentence: str) -> str:
    """A message without the middle of overlong words, and of itself if it is overlong then."""
    words = re.sub(r"\S+", lambda word: _cut(word[0], _LONGEST_WORD), sentence)
    return _cut(words, _LONGEST)


def _cut(text: str, most: int) -> str:
    """A text without its middle; the end, which says what to do, is kept as the beginning is."""
    left = len(text) - most
    return f"{text[: most // 2]}[... {left} more ...]{text[-most // 2 :]}" if left > 0 else text


def closest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` for a misspelt name, or nothing."""
    found = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def one_line(error: BaseException) -> str:
    """An error's message on one line; KeyError's without its quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def message_of(error: BaseException) -> str:
    """An error's message, or what there is in its place."""
    message = one_line(error)
    if message:
        return message
    if isinstance(error, AssertionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{last.line} does not hold (in {last.name})"
    return type(error).__name__
