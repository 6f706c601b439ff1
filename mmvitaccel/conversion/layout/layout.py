"""Definition of a layout: how weights are recognised, and the target name of each tensor."""

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
    """Tensors that a layout has renamed and adapted.

    Attributes:
        weights: Tensors by this project's names.
        changes: How tensors were changed, by this project's names, as ``permuted from BGR to RGB``.
        settings: Values that a config must have for these weights; saved as metadata.
        classes: Class names, if the layout defines them.
    """

    weights: dict[str, Tensor]
    changes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A layout of released weights.

    Attributes:
        name: Value of ``--format``.
        title: Description for the report.
        recognise: Checks by names and class counts whether weights have this layout.
        rules: Regular expressions of complete names, with their targets; the first match counts. A
            target is a template, or a function of the match and the file's weights that returns
            one or more names. The tensor is stored under each of them.
        needed: Returns the names and shapes of the complete model, given the renamed tensors.
        leave: Regular expressions of names that the model does not have, with the reason.
        adapt: Changes the renamed tensors where the two codebases differ; it also receives the
            file's weights. It raises a ValueError if it cannot.
    """

    name: str
    title: str
    recognise: Callable[[Weights], bool]
    rules: tuple[tuple[str, Target], ...]
    needed: Callable[[Weights], Shapes]
    leave: tuple[tuple[str, str], ...] = ()
    adapt: Callable[[Adapted, Weights], None] | None = None

    def targets(self, name: str, weights: Weights) -> tuple[str, ...]:
        """Return this project's names for a tensor; empty if the model does not have it."""
        for pattern, target in self.rules:
            match = re.fullmatch(pattern, name)
            if match:
                found = match.expand(target) if isinstance(target, str) else target(match, weights)
                return (found,) if isinstance(found, str) else found
        return ()

    def reason(self, name: str) -> str:
        """Return why the model does not have a tensor."""
        for pattern, reason in self.leave:
            if re.fullmatch(pattern, name):
                return reason
        return "unknown in this layout"


def has(weights: Weights, *patterns: str) -> bool:
    """Check whether each pattern matches the complete name of a tensor."""
    return all(any(re.fullmatch(pattern, name) for name in weights) for pattern in patterns)


def rows(weights: Weights, name: str) -> int:
    """Return the length of a tensor's first axis; 0 if the tensor is missing."""
    return len(weights[name]) if name in weights else 0
