"""Comparison of a resumed training's config with the config in its checkpoint."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError

_NAMED = 4
_ABSENT = object()


def check_resumable(path: str, meta: Mapping[str, Any]) -> None:
    """Refuse to go on from a file that does not say how far its training was.

    Args:
        path: The checkpoint, for the sentence.
        meta: Its ``meta``.

    Raises:
        UserError: It has no whole number of epochs or iterations.
    """
    for key in ("epoch", "iter"):
        value = meta.get(key)
        if not isinstance(value, int):
            what = f"{value!r} as its meta's {key!r}" if key in meta else f"no {key!r} in its meta"
            raise UserError(
                f"checkpoint {path} has {what}, so that a training cannot go on from it; to start "
                "from its weights, give it as load_from and leave --resume out."
            )


def check_resumed_batch(cfg: Config, path: str, meta: Mapping[str, Any]) -> None:
    """Warn if a training is resumed with another batch size.

    Args:
        cfg: Config of the resumed training.
        path: Path of the checkpoint, for messages.
        meta: ``meta`` of the checkpoint. The config in it is parsed, never executed.
    """
    before = _value(_saved(meta, "train_dataloader"), "batch_size")
    now = (cfg.get("train_dataloader") or {}).get("batch_size")
    if before is not None and now is not None and before != now:
        warnings.warn(
            f"train_dataloader.batch_size is {now}, but checkpoint {path} was trained with "
            f"{before}: the number of iterations, the learning rate and the schedule belong to "
            f"that size; set train_dataloader.batch_size={before} if this is not intended.",
            stacklevel=2,
        )


def check_resumed_settings(cfg: Config, path: str, meta: Mapping[str, Any]) -> None:
    """Warn of settings of optimizer and schedule that have no effect in a resumed training.

    mmengine restores the state of both, which includes learning rates, milestones and ends.

    Args:
        cfg: Config of the resumed training.
        path: Path of the checkpoint, for messages.
        meta: ``meta`` of the checkpoint. The config in it is parsed, never executed.
    """
    changed: list[tuple[str, Any, Any]] = []
    wrapper = _saved(meta, "optim_wrapper")
    now = cfg.get("optim_wrapper")
    for key in ("optimizer", "paramwise_cfg"):
        before, own = _value(wrapper, key), _value(now, key)
        if isinstance(before, Mapping) and isinstance(own, Mapping):
            changed += _differences(f"optim_wrapper.{key}", before, own)
    before = _saved(meta, "param_scheduler")
    if before is not None and cfg.get("param_scheduler") is not None:
        changed += _differences("param_scheduler", before, cfg.param_scheduler)
    if changed:
        shown = ", ".join(
            f"{key} is {_word(own)} (was {_word(saved)})" for key, own, saved in changed[:_NAMED]
        )
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        warnings.warn(
            f"{shown}{more}: a resumed training restores optimizer and schedule from its "
            f"checkpoint, {path}, so these settings have no effect; to train with them, start from "
            "its weights (load_from without resume), else restore them.",
            stacklevel=2,
        )


def _saved(meta: Mapping[str, Any], name: str) -> Any:
    """Return a top-level setting of the config in a checkpoint; None if there is none."""
    text = meta.get("cfg")
    try:
        statements = ast.parse(text).body if isinstance(text, str) else []
    except SyntaxError:
        return None
    for node in statements:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            try:
                return ast.literal_eval(ast.fix_missing_locations(_Plain().visit(node.value)))
            except (ValueError, TypeError):
                return None
    return None


class _Plain(ast.NodeTransformer):
    """Replaces ``dict(a=1)``, which mmengine writes, by ``{"a": 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) != "dict":
            return node
        names: list[ast.expr | None] = [
            ast.Constant(keyword.arg) if keyword.arg else None for keyword in node.keywords
        ]
        inner = [argument for argument in node.args if isinstance(argument, ast.Dict)]
        return ast.Dict(
            [*(key for part in inner for key in part.keys), *names],
            [
                *(value for part in inner for value in part.values),
                *(keyword.value for keyword in node.keywords),
            ],
        )


def _differences(where: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys whose values differ, with the new and the saved value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*now, *before]):
            # mmengine records in `_scope_` which package a base config is from.
            if key == "_scope_":
                continue
            yield from _differences(
                f"{where}.{key}", before.get(key, _ABSENT), now.get(key, _ABSENT)
            )
    elif _are_lists(before, now) and any(isinstance(x, Mapping) for x in (*before, *now)):
        for index, pair in enumerate(zip_longest(before, now, fillvalue=_ABSENT)):
            yield from _differences(f"{where}.{index}", *pair)
    elif _are_lists(before, now):
        if list(before) != list(now):
            yield where, now, before
    elif not where.endswith(".type") and before != now:
        # Types are not compared: a config that contains the class itself writes its full name.
        yield where, now, before


def _are_lists(*values: Any) -> bool:
    return all(isinstance(value, (list, tuple)) for value in values)


def _value(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, Mapping) else None


def _word(value: Any) -> str:
    return "not set" if value is _ABSENT else repr(value)
