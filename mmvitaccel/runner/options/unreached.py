"""Options without effect, because their variable was only used while reading the config."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError, shorten
from mmvitaccel.runner.options.keys import RUNNER_KEYS
from mmvitaccel.runner.options.overrides import differences, read_again, value_at

_NAMED = 8


def refuse_used_up(cfg: Config, key: str, value: Any, options: Mapping[str, Any]) -> None:
    """Refuse an option for a variable that only the config itself reads.

    It is accepted if all settings derived from it are also given, with matching values.
    """
    name = key.partition(".")[0]
    before = cfg.to_dict()
    try:
        again = read_again(cfg.filename, {key: value}).to_dict()
    except Exception as error:
        raise UserError(
            f"--cfg-options {key}: {name} is used up when the config is read, which fails with "
            f"{value!r} ({type(error).__name__}: {error}); set what is made of it."
        ) from error
    # Random values and times in a config differ at each reading
    changing = {path for path, _ in differences(before, read_again(cfg.filename, {}).to_dict())}
    made = [
        (path, new)
        for path, new in differences(before, again)
        if path[0] in RUNNER_KEYS and path not in changing
    ]
    left = [(path, new) for path, new in made if options.get(".".join(path)) != new]
    if left:
        raise UserError(
            f"--cfg-options {key}: {name} was used up when the config was read, setting it now "
            f"changes nothing; set what was made of it, {_all_options(left)}."
        )
    if not made and value_at(before, key.split(".")) != value:
        warnings.warn(
            shorten(
                f"--cfg-options {key}: nothing in the config is made of {name}; it has an effect "
                "only where a hook of yours reads it."
            ),
            stacklevel=3,
        )


def tell_unreached(cfg: Config, before: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Warn about settings that were derived from an overridden one and do not change."""
    if not options or not str(cfg.filename).endswith(".py"):
        return
    try:
        again = read_again(cfg.filename, options).to_dict()
    except Exception:
        # Only the warning is lost; the options themselves are merged
        return
    given = {tuple(key.split(".")) for key in options}
    tails = {path[1:] for path in given if len(path) > 1}
    left = [
        (path, new)
        for path, new in differences(before, again)
        if path not in given and path[1:] in tails
    ]
    if left:
        warnings.warn(
            shorten(
                "--cfg-options: these were set to the same as what is overridden when the config "
                f"was read, and do not follow it: {_all_options(left)}; give them too if they are "
                "meant."
            ),
            stacklevel=3,
        )


def _all_options(made: Sequence[tuple[Sequence[str], Any]]) -> str:
    """The first few options as ``KEY=VALUE ...`` for the shell."""
    keys = " ".join(shlex.quote(_option(path, new)) for path, new in made[:_NAMED])
    return keys + (f" and {len(made) - _NAMED} more" if len(made) > _NAMED else "")


def _option(path: Sequence[str], value: Any) -> str:
    """``KEY=VALUE`` in the format of ``--cfg-options``."""
    if isinstance(value, (list, tuple)):
        left, right = "[]" if isinstance(value, list) else "()"
        value = f"{left}{','.join(map(str, value))}{right}"
    return f"{'.'.join(path)}={value}"
