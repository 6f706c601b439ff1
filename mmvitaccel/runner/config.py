"""Configs: read, checked key by key against what the command line overrides."""

from __future__ import annotations

import argparse
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.hub import get_config
from mmengine.runner import Runner

from mmvitaccel.errors import UserError, building, closest

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


def load_config(path: str, options: Mapping[str, Any]) -> Config:
    """Read a config and override settings in it.

    Args:
        path: A file, or ``package::path`` as in ``_base_``.
        options: Dotted keys to values.

    Raises:
        UserError: The file is missing or faulty, or an option's key leads nowhere.
    """
    if "::" not in path:
        _check_is_file(path)
    with warnings.catch_warnings(), building(f"config {path}"):
        # reason: mmengine resolves `package::` with pkg_resources, which warns whoever imports it.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        cfg = get_config(path) if "::" in path else Config.fromfile(path)
    for key in options:
        _check_key(cfg, key)
    with building("--cfg-options"):
        cfg.merge_from_dict(dict(options))
    if not isinstance(cfg.get("model"), dict):
        raise UserError(f"config {path} defines no model; give a config with model=dict(type=...).")
    if cfg.get("default_scope") is None and package_of(cfg) in _SCOPES:
        # reason: types that are classes say where they are from, defaults inside them do not
        cfg.default_scope = package_of(cfg)
    return cfg


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
