"""Configs: read, checked key by key against what the command line overrides."""

from __future__ import annotations

import argparse
import inspect
import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmvitaccel.errors import UserError, building, closest, shorten
from mmvitaccel.runner.overrides import differences, read_again, value_at

# Top-level keys that the Runner and the tools read, whether or not a config sets them.
_RUNNER_KEYS = {name for name in inspect.signature(Runner).parameters if name != "cfg"} | {
    "compile",
    "custom_imports",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "runner_type",
    "sync_bn",
    "tta_model",
    "tta_pipeline",
}
_NAMED = 8


_SCOPES = ("mmaction", "mmdet", "mmpretrain")


class ConfigOptions(DictAction):
    """``KEY=VALUE ...`` as mmengine reads it, with its parse errors said in a sentence."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Parse each pair by itself, so that the one at fault can be named."""
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


def load_config(path: str, options: Mapping[str, Any], reads: Collection[str] = ()) -> Config:
    """Read a config and override settings in it.

    Args:
        path: A file, or ``package::path`` as in ``_base_``.
        options: Dotted keys to values.
        reads: Variables of the config's own that the caller reads; with others of that value the
            config is read again, so that everything made of them follows.

    Raises:
        UserError: The file is missing or faulty, an option's key leads nowhere, or is of a
            variable that was used up when the config was read.
    """
    if "::" not in path:
        _check_is_file(path)
    with warnings.catch_warnings(), building(f"config {path}"):
        # reason: mmengine resolves `package::` with pkg_resources, which warns whoever imports it.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        cfg = get_config(path) if "::" in path else Config.fromfile(path)
    for key in options:
        _check_key(cfg, key)
    own = {key: options[key] for key in options if key.partition(".")[0] not in _RUNNER_KEYS}
    for key, value in own.items():
        if key.partition(".")[0] not in reads:
            _refuse_used_up(cfg, key, value, options)
    read = {key: own[key] for key in own if key.partition(".")[0] in reads}
    with building("--cfg-options"):
        if read:
            cfg = read_again(cfg.filename, read)
        before = cfg.to_dict()
        cfg.merge_from_dict(dict(options))
    _tell_unreached(cfg, before, {key: options[key] for key in options if key not in own})
    if not isinstance(cfg.get("model"), dict):
        raise UserError(f"config {path} defines no model; give a config with model=dict(type=...).")
    if cfg.get("default_scope") is None and package_of(cfg) in _SCOPES:
        # reason: types that are classes say where they are from, defaults inside them do not
        cfg.default_scope = package_of(cfg)
    return cfg


@building("config")
def scale_learning_rate(cfg: Config) -> None:
    """Let the learning rate follow the batch size, from the one that the config was made for.

    Raises:
        UserError: It does not say for which.
    """
    if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
        raise UserError("--auto-scale-lr: set auto_scale_lr.base_batch_size in the config.")
    cfg.auto_scale_lr.enable = True


def package_of(cfg: Config) -> str:
    """The package of a config's model: its ``default_scope``, else by the model's ``type``."""
    kind = cfg.model.get("type")
    named = kind if isinstance(kind, str) else getattr(kind, "__module__", "")
    return cfg.get("default_scope") or named.partition(".")[0]


def _check_is_file(path: str) -> None:
    file = Path(path)
    if file.is_file():
        return
    beside = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
    raise UserError(
        f"config {path} does not exist; give the path of a config file"
        f"{closest(file.name, beside) or '.'}"
    )


def _check_key(cfg: Config, key: str) -> None:
    """Refuse a dotted key that cannot be a setting; new keys inside dicts are allowed."""
    first, *rest = key.split(".")
    known = _RUNNER_KEYS | set(cfg.keys())
    if first not in known:
        raise UserError(
            f"--cfg-options {key}: the config has no setting {first!r}; use one that it has"
            f"{closest(first, known) or '.'}"
        )
    node, path = cfg.get(first), first
    for name in rest:
        if node is None:
            return
        if isinstance(node, (list, tuple)):
            node = _list_item(node, name, key, path)
        elif isinstance(node, dict):
            node = node.get(name)
        else:
            raise UserError(
                f"--cfg-options {key}: {path} is {node!r}, which has no setting {name!r}; "
                f"set {path} itself."
            )
        path = f"{path}.{name}"


def _refuse_used_up(cfg: Config, key: str, value: Any, options: Mapping[str, Any]) -> None:
    """Refuse an option of a variable that only the config itself reads.

    Where all that is made of it is given beside it, with the values that it would have, there is
    nothing to refuse.
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
    # reason: what a config draws at random or takes from the clock differs at each reading
    changing = {path for path, _ in differences(before, read_again(cfg.filename, {}).to_dict())}
    made = [
        (path, new)
        for path, new in differences(before, again)
        if path[0] in _RUNNER_KEYS and path not in changing
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


def _tell_unreached(cfg: Config, before: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Warn of settings that were made of one that is overridden, and do not follow it."""
    if not options or not str(cfg.filename).endswith(".py"):
        return
    try:
        again = read_again(cfg.filename, options).to_dict()
    except Exception:
        # reason: only what is said beside it is lost; the options themselves are merged
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
    """``KEY=VALUE ...`` for the shell, the first few of them."""
    keys = " ".join(shlex.quote(_option(path, new)) for path, new in made[:_NAMED])
    return keys + (f" and {len(made) - _NAMED} more" if len(made) > _NAMED else "")


def _option(path: Sequence[str], value: Any) -> str:
    """``KEY=VALUE`` as ``--cfg-options`` reads it."""
    if isinstance(value, (list, tuple)):
        left, right = "[]" if isinstance(value, list) else "()"
        value = f"{left}{','.join(map(str, value))}{right}"
    return f"{'.'.join(path)}={value}"


def _list_item(node: Sequence[Any], name: str, key: str, path: str) -> Any:
    if isinstance(node, tuple):
        raise UserError(
            f"--cfg-options {key}: {path} is a tuple, whose items cannot be set one by one; "
            f'set it as a whole, {path}="(a,b)".'
        )
    if not name.isdigit():
        raise UserError(
            f"--cfg-options {key}: {path} is a list of {len(node)}; use a number from 0 to "
            f"{len(node) - 1} for {name!r}."
        )
    if int(name) >= len(node):
        raise UserError(
            f"--cfg-options {key}: {path} has {len(node)} items; use a number from 0 to "
            f"{len(node) - 1} for {name!r}, or set {path} as a whole."
        )
    return node[int(name)]
