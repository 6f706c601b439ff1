"""Exit of tools: a user's mistake is one line on stderr with exit status 2."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from mmvitaccel.errors.origin import is_refusal
from mmvitaccel.errors.sentence import UserError, one_line, shorten
from mmvitaccel.errors.system import explain_system

EXIT_STATUS = 2
_TRACEBACK = "MMVITACCEL_TRACEBACK"


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, with long values abbreviated in errors."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with status 2."""
        super().error(shorten(message))


def refuse_below(args: argparse.Namespace, least: int, *options: str) -> None:
    """Refuse numbers that are too small; options without a value are not checked.

    Args:
        args: What was parsed.
        least: The least value.
        options: Names without the dashes at their front, such as ``max-steps``.

    Raises:
        UserError: A number of an option, or of its list, is below ``least``.
    """
    for option in options:
        given = getattr(args, option.replace("-", "_"))
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least:
                raise UserError(f"--{option} {value}: give {least} or more.")


def one_sentence_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorator for ``main``: print a :class:`UserError` on stderr and exit with status 2."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            if os.environ.get(_TRACEBACK):
                traceback.print_exc()
            rank = os.environ.get("RANK", "0")
            where = "" if rank == "0" else f" (rank {rank})"
            sys.stdout.flush()
            print(f"error{where}: {sentence}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_STATUS) from None

    return run


def sentence_of(error: BaseException) -> str | None:
    """Message of a tool for an error; None for a bug of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted from the keyboard; files written so far are kept."
    known = isinstance(error, UserError) or is_refusal(error)
    sentence = one_line(error) if known else explain_system(error)
    return sentence and shorten(sentence)
