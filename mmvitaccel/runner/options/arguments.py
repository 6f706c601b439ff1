"""``--cfg-options`` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from mmvitaccel.errors import UserError


class ConfigOptions(DictAction):
    """``KEY=VALUE ...`` in mmengine's format, with one-sentence errors."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Parse each pair separately, so that errors name the wrong one."""
        for pair in values or ():
            if not pair.partition("=")[1] or not pair.partition("=")[0]:
                raise UserError(f"{option_string}: {pair!r} is no KEY=VALUE pair.")
            try:
                super().__call__(parser, namespace, [pair], option_string)
            except (AssertionError, RecursionError, ValueError):
                raise UserError(
                    f"{option_string}: the value of {pair!r} cannot be read; lists are written "
                    "KEY=[a,b], and a dict key by key, KEY.type=X KEY.argument=1 (for a hook "
                    "default_hooks.NAME.type=X)."
                ) from None


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``config`` and ``--cfg-options``."""
    parser.add_argument("config", help="config file, or 'package::path' of an installed one")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=ConfigOptions,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, e.g. model.backbone.arch=m0 or "
        "default_hooks.tome.type=mmvitaccel.ToMeHook; lists as KEY=[a,b] or KEY=a,b",
    )
