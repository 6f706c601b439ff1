"""What a layout of released weights is: how it is recognised, and where each tensor goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from torch import Tensor

Weights = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Target = Union[str, Callable[[re.Match, Weights], Union[str, tuple[str, ...]]]]


@dataclass
class Adapted:
    """What a layout did to tensors beyond renaming them.

    Attributes:
        weights: The result, by this project's names.
        changes: By name, what was done to a tensor: ``resized from ...``, ``permuted ...``.
        settings: What a config has to say for these weights; becomes metadata.
        classes: Names of the classes, where the layout says which they are.
    """

    weights: dict[str, Tensor]
    changes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A public layout of weights.

    Attributes:
        name: What ``--format`` calls it.
        title: What it is, for the report.
        recognise: Whether weights are of this layout, from their names (and class counts).
        rules: Patterns of whole names and where they go, the first that matches; a function, of
            the match and the file's weights, may give several names: each gets the tensor.
        leave: Patterns of names that have no place in the model, and why.
        needed: Names and shapes that the result must have, found from the result.
        adapt: Changes the renamed tensors where the two codebases differ; raises a ValueError
            where it cannot.
    """

    name: str
    title: str
    recognise: Callable[[Weights], bool]
    rules: tuple[tuple[str, Target], ...]
    needed: Callable[[Weights], Shapes]
    leave: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[Adapted, Weights], None] | None = None

    def targets(self, name: str, weights: Weights) -> tuple[str, ...]:
        """This project's names for a tensor of the file; none if it has no place."""
        for pattern, target in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                found = match.expand(target) if isinstance(target, str) else target(match, weights)
                return (found,) if isinstance(found, str) else found
        return ()

    def reason(self, name: str) -> str:
        """Why a tensor has no place."""
        for pattern, reason in self.leave:
            if re.fullmatch(pattern, name):
                return reason
        return "not known in this layout"


def has(weights: Weights, *patterns: str) -> bool:
    """Whether each pattern is the whole name of some tensor."""
    return all(any(re.fullmatch(pattern, name) for name in weights) for pattern in patterns)


def rows(weights: Weights, name: str) -> int:
    """First length of a tensor, 0 where it is not there."""
    return len(weights[name]) if name in weights else 0
