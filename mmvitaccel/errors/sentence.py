"""The one-sentence error for users' mistakes, and helpers for messages."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable

# Characters: longer than most paths, and longer than most messages.
_LONGEST_WORD = 300
_LONGEST = 1500


class UserError(Exception):
    """A user's mistake, described in one sentence: what is wrong, where, and what to do.

    Args:
        sentence: The message. Long parts, such as repeated values, are abbreviated in the middle.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(shorten(sentence))


def shorten(sentence: str) -> str:
    """Abbreviate long words of a message in the middle, then the message itself."""
    words = re.sub(r"\S+", lambda word: _cut(word[0], _LONGEST_WORD), sentence)
    return _cut(words, _LONGEST)


def _cut(text: str, most: int) -> str:
    """Remove the middle of a text; the end, which says what to do, is kept."""
    left = len(text) - most
    return f"{text[: most // 2]}[... {left} more ...]{text[-most // 2 :]}" if left > 0 else text


def closest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` for a misspelt name, or an empty string."""
    found = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def one_line(error: BaseException) -> str:
    """An error's message on one line; KeyError's without its quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


def message_of(error: BaseException) -> str:
    """An error's message, or a substitute for an empty one."""
    message = one_line(error)
    if message:
        return message
    if isinstance(error, AssertionError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{last.line} is false (in {last.name})"
    return type(error).__name__
