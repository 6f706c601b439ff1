"""Weights that were saved through a wrapper: torch.compile, Lightning, an average, FSDP.

A wrapper puts its own name into those of the parameters: ``_orig_mod.backbone.0.weight``,
``model.module.backbone.0.weight``. Which of several sets of weights in a file was taken is said.
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

# Names that a wrapper inserts at any depth, where the module that it wraps is; and the one that
# torch's parallel modules put in front.
_INSERTED = re.compile(
    r"(?<![^.])(_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    r"|^(module\.)+"
)
# Names that a wrapper puts in front; the first that fits is taken.
_IN_FRONT = ("module", "model", "net", "network", "ema_model", "model_ema", "ema", "averaged_model")

_DEEPEST = 3  # names in front of a model's own, of a program's that holds several models
_NEARLY_ALL = 0.9  # of a model's names, for a prefix to be the one that is meant


@dataclass(frozen=True)
class Choice:
    """Which weights of a file are meant.

    Attributes:
        entry: The key that holds them (``ema_state_dict``); empty for the usual one.
        prefix: What precedes the model's names in it; empty to find a wrapper's by itself.
    """

    entry: str = ""
    prefix: str = ""


USUAL = Choice()


def read_weights(source: str, own: Collection[str], choice: Choice) -> dict[str, Tensor]:
    """Read the weights of a file for a model; see :func:`choose_weights`.

    Raises:
        FileNotFoundError: There is no such file, or it could not be downloaded.
        ValueError: The file is cut short, asks for more than tensors, or holds no weights.
    """
    return choose_weights(read_content(source), source, own, choice)


def choose_weights(
    content: object, source: str, own: Collection[str], choice: Choice
) -> dict[str, Tensor]:
    """The weights of a checkpoint by a model's own names.

    Args:
        content: What was read.
        source: Where from, for messages.
        own: The model's names; where none of them is there, only what precedes every name is taken
            off.
        choice: Which weights are meant.

    Returns:
        Names to tensors. Where a prefix was given or found, only what is below it.

    Raises:
        ValueError: There are no such weights.
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
    # reason: of equal ones max takes the first, which is the one without a wrapper
    prefix = max(prefixes, key=hits.__getitem__)
    if not hits[prefix]:
        _refuse_strange_prefixes(weights, source, own)
        # reason: names that are to be translated yet; a wrapper is what precedes all of them
        prefix = max((p for p in prefixes if all(n.startswith(p) for n in weights)), key=len)
    others = [p for p in prefixes if p != prefix and hits[p] == hits[prefix] > 0]
    _say(content, source, choice.entry, prefix, others)
    return cut(weights, prefix)


def without_inserted(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights without the names that wrappers insert.

    Raises:
        ValueError: Two names become one.
    """
    plain: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, value in weights.items():
        short = _INSERTED.sub("", name)
        if short in plain:
            raise ValueError(
                f"{source}: its {origin[short]!r} and {name!r} are the same parameter, once "
                "through a wrapper; save the state_dict of one of the two."
            )
        plain[short], origin[short] = value, name
    return plain


def cut(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it."""
    return {n[len(prefix) :]: value for n, value in weights.items() if n.startswith(prefix)}


def _prefixes(weights: Mapping[str, Tensor]) -> list[str]:
    """Every run of wrappers' names in front, the empty one first, then in order of the names."""
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
    """Refuse names that are the model's behind a prefix that no known wrapper puts there.

    Raises:
        ValueError: Says which prefixes.
    """
    fronts = {
        ".".join(name.split(".")[:depth]) + "."
        for name in weights
        for depth in range(1, min(name.count("."), _DEEPEST) + 1)
    }
    fitting = [p for p in sorted(fronts) if _hits(weights, p, own) > _NEARLY_ALL * len(own)]
    if fitting:
        raise ValueError(
            f"{source}: the model's names are in it below {' and '.join(map(repr, fitting))}; say "
            f"which are meant, with --prefix {fitting[0]} or in an init_cfg with "
            f"prefix={fitting[0]!r}."
        )


def _hits(weights: Mapping[str, Tensor], prefix: str, own: Collection[str]) -> int:
    """How many of a model's names are there below a prefix."""
    return sum(name[len(prefix) :] in own for name in weights if name.startswith(prefix))


def _say(content: object, source: str, entry: str, prefix: str, others: list[str]) -> None:
    """Say what was taken of a file that holds more than one set of weights."""
    entries = [] if entry else weight_entries(content)
    taken = entry or usual_entry(content)
    left = [key for key in entries if key != taken]
    if not left and not others:
        return
    what = f"'{taken}'" if taken else "what lies at the top"
    below = f", names below '{prefix}'" if others else ""
    kind = ""
    if left and _swapped(content) and taken == "state_dict":
        kind = " (as EMAHook saves them, 'state_dict' is averaged and 'ema_state_dict' is not)"
    options = [f"--weights {key}" for key in left] + [f"--prefix {p}" for p in others]
    print_log(
        f"{source}: {what}{below} was taken{kind}; the file holds other weights too, to take them "
        f"give {' or '.join(options)}.",
        logger="current",
    )


def _swapped(content: object) -> bool:
    """Whether a file is mmengine's with an EMAHook, which saves the average as the model."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return isinstance(meta, Mapping) and "mmengine_version" in meta and "ema_state_dict" in content
