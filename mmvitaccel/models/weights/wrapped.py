"""Weights saved from within a wrapper: torch.compile, Lightning, weight averaging, FSDP.

A wrapper adds its name to those of the parameters: ``_orig_mod.backbone.0.weight``,
``model.module.backbone.0.weight``. If a file has several sets of weights, the log says which one is
loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mmengine.logging import print_log
from torch import Tensor

from mmvitaccel.models.weights.checkpoint import (
    find_weights,
    read_content,
    usual_entry,
    weight_entries,
)

# Names that wrappers insert at any depth, and the prefix of torch's parallel modules.
_INSERTED = re.compile(
    r"(?<![^.])(_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    r"|^(module\.)+"
)
# Prefixes of wrappers; the first one that fits is used.
_IN_FRONT = ("module", "model", "net", "network", "ema_model", "model_ema", "ema", "averaged_model")

_DEEPEST = 3  # maximum number of names in a prefix, for a program that holds several models
_NEARLY_ALL = 0.9  # share of a model's names that have to follow a prefix to suggest it


@dataclass(frozen=True)
class Choice:
    """Selects the weights of a file.

    Attributes:
        entry: Key of the weights, such as ``ema_state_dict``; empty for the default one.
        prefix: Prefix of the model's names in them; empty to detect the prefix of a wrapper.
    """

    entry: str = ""
    prefix: str = ""


USUAL = Choice()


def read_weights(source: str, own: Collection[str], choice: Choice) -> dict[str, Tensor]:
    """Read the weights of a file for a model; see :func:`choose_weights`.

    Raises:
        FileNotFoundError: The file does not exist or cannot be downloaded.
        ValueError: The file is truncated, requires more than tensors, or has no such weights.
    """
    return choose_weights(read_content(source), source, own, choice)


def choose_weights(
    content: object, source: str, own: Collection[str], choice: Choice
) -> dict[str, Tensor]:
    """Select the weights of a checkpoint and remove the prefixes of wrappers from their names.

    Args:
        content: Content of the file.
        source: Name of the file for messages.
        own: The model's names. If the file has none of them, only a prefix common to all names is
            removed.
        choice: Selects the weights.

    Returns:
        Names to tensors; if a prefix was given or detected, only the weights with it.

    Raises:
        ValueError: There are no such weights, or the prefix has to be given.
    """
    weights = without_inserted(find_weights(content, source, choice.entry), source)
    if choice.prefix:
        below = cut(weights, choice.prefix)
        if not below:
            raise ValueError(
                f"{source}: no name in it begins with {choice.prefix!r} (the first is "
                f"{next(iter(weights))!r}); correct the prefix."
            )
        return below
    prefixes = _prefixes(weights)
    hits = {prefix: _hits(weights, prefix, own) for prefix in prefixes}
    # Max returns the first of equals, so the empty prefix takes precedence
    prefix = max(prefixes, key=hits.__getitem__)
    if not hits[prefix]:
        _refuse_strange_prefixes(weights, source, own)
        # The names belong to another layout; only a prefix of all can be a wrapper's
        prefix = max((p for p in prefixes if all(n.startswith(p) for n in weights)), key=len)
    others = [p for p in prefixes if p != prefix and hits[p] == hits[prefix] > 0]
    _say(content, source, choice.entry, prefix, others)
    return cut(weights, prefix)


def without_inserted(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Remove the names that wrappers insert.

    Raises:
        ValueError: Two names become equal.
    """
    plain: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, value in weights.items():
        short = _INSERTED.sub("", name)
        if short in plain:
            raise ValueError(
                f"{source}: its {origin[short]!r} and {name!r} are the same parameter, with and "
                "without a wrapper; save the state_dict of one of the two."
            )
        plain[short], origin[short] = value, name
    return plain


def cut(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without the prefix."""
    return {n[len(prefix) :]: value for n, value in weights.items() if n.startswith(prefix)}


def _prefixes(weights: Mapping[str, Tensor]) -> list[str]:
    """Return all prefixes that consist of wrappers' names, beginning with the empty one."""
    found = {""}
    for name in weights:
        run = ""
        for part in name.split(".")[:-1]:
            if part not in _IN_FRONT:
                break
            run += f"{part}."
            found.add(run)

    def order(prefix: str) -> list[int]:
        return [_IN_FRONT.index(part) for part in prefix.split(".")[:-1]]

    return sorted(found, key=order)


def _refuse_strange_prefixes(
    weights: Mapping[str, Tensor], source: str, own: Collection[str]
) -> None:
    """Refuse the model's names after a prefix that is not a known wrapper's.

    Raises:
        ValueError: There is such a prefix; the message names it.
    """
    fronts = {
        ".".join(name.split(".")[:depth]) + "."
        for name in weights
        for depth in range(1, min(name.count("."), _DEEPEST) + 1)
    }
    fitting = [p for p in sorted(fronts) if _hits(weights, p, own) > _NEARLY_ALL * len(own)]
    if fitting:
        raise ValueError(
            f"{source}: the model's names follow the prefix {' and '.join(map(repr, fitting))} in "
            f"it; select one with --prefix {fitting[0]}, or with prefix={fitting[0]!r} in an "
            "init_cfg."
        )


def _hits(weights: Mapping[str, Tensor], prefix: str, own: Collection[str]) -> int:
    """Count the model's names that follow a prefix."""
    return sum(name[len(prefix) :] in own for name in weights if name.startswith(prefix))


def _say(content: object, source: str, entry: str, prefix: str, others: list[str]) -> None:
    """Log which weights are loaded from a file with more than one set of them."""
    entries = [] if entry else weight_entries(content)
    taken = entry or usual_entry(content)
    left = [key for key in entries if key != taken]
    if not left and not others:
        return
    what = f"'{taken}'" if taken else "the weights at the top level"
    below = f" with the prefix '{prefix}'" if others else ""
    kind = ""
    if left and _swapped(content) and taken == "state_dict":
        kind = " (EMAHook saves the average as 'state_dict', the other weights as 'ema_state_dict')"
    options = [f"--weights {key}" for key in left] + [f"--prefix {p}" for p in others]
    print_log(
        f"{source}: loading {what}{below}{kind}; the file has other weights too, which are loaded "
        f"with {' or '.join(options)}.",
        logger="current",
    )


def _swapped(content: object) -> bool:
    """Whether mmengine saved a file with an EMAHook, which stores the average as the model."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return isinstance(meta, Mapping) and "mmengine_version" in meta and "ema_state_dict" in content
