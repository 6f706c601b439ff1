"""A layout of released weights: how it is recognised, and the target name of each tensor."""

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
    """Tensors that a layout has renamed and changed.

    Attributes:
        weights: The result, by this project's names.
        changes: How a tensor was changed, by name: ``resized from ...``, ``permuted ...``.
        settings: Values that a config must have for these weights; saved as metadata.
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
        name: Value of ``--format``.
        title: Description for the report.
        recognise: Whether weights have this layout, by their names (and class counts).
        rules: Patterns of complete names with their targets; the first match counts. A function of
            the match and the file's weights may return several names; each gets the tensor.
        leave: Patterns of names that the model does not have, with the reason.
        needed: Names and shapes that the result must have, derived from the result.
        adapt: Changes the renamed tensors where the two codebases differ; raises a ValueError
            if it cannot.
    """

    name: str
    title: str
    recognise: Callable[[Weights], bool]
    rules: tuple[tuple[str, Target], ...]
    needed: Callable[[Weights], Shapes]
    leave: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[Adapted, Weights], None] | None = None

    def targets(self, name: str, weights: Weights) -> tuple[str, ...]:
        """This project's names for a tensor of the file; empty if the model does not have it."""
        for pattern, target in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                found = match.expand(target) if isinstance(target, str) else target(match, weights)
                return (found,) if isinstance(found, str) else found
        return ()

    def reason(self, name: str) -> str:
        """Why the model does not have a tensor."""
        for pattern, reason in self.leave:
            if re.fullmatch(pattern, name):
                return reason
        return "not known in this layout"


def has(weights: Weights, *patterns: str) -> bool:
    """Whether each pattern matches the complete name of some tensor."""
    return all(any(re.fullmatch(pattern, name) for name in weights) for pattern in patterns)


def rows(weights: Weights, name: str) -> int:
    """Length of a tensor's first axis, 0 if the tensor is missing."""
    return len(weights[name]) if name in weights else 0
