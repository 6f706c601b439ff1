"""Validation of dotted keys of a config."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmvitaccel.errors import UserError, closest

# Top-level keys that the Runner and the tools read, even if a config does not set them.
RUNNER_KEYS = {name for name in inspect.signature(Runner).parameters if name != "cfg"} | {
    "compile",
    "custom_imports",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "runner_type",
    "sync_bn",
    "tta_model",
    "tta_pipeline",
}


def check_key(cfg: Config, key: str) -> None:
    """Refuse an invalid dotted key; new keys inside dicts are allowed."""
    first, *rest = key.split(".")
    known = RUNNER_KEYS | set(cfg.keys())
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
