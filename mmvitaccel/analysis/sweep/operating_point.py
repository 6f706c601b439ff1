"""An operating point: a method with a budget, attached by a hook to a config's model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict

from mmvitaccel.errors import UserError
from mmvitaccel.registry import POLICIES

DENSE = "dense"
#: The control policy, which is never recommended.
CONTROL = "RandomTokens"


@dataclass(frozen=True)
class OperatingPoint:
    """A method and its budget; without a hook, the dense model.

    Attributes:
        method: ``dense``, ``ToMe``, ``RLT``, or the attention mode of Eventful.
        policy: Policy of Eventful; empty otherwise.
        k: Tokens that pass Eventful's gates; None otherwise.
        r: Tokens that ToMe merges in each block; None otherwise.
        threshold: Of run-length tokenization; None otherwise.
        hook: Config of the hook that attaches the method; None for the dense model.
    """

    method: str
    policy: str = ""
    k: int | None = None
    r: int | None = None
    threshold: float | None = None
    hook: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Name for people."""
        if self.hook is None:
            return self.method
        if self.r is not None:
            return f"{self.method} r={self.r}"
        if self.threshold is not None:
            return f"{self.method} threshold={self.threshold}"
        return f"{self.method} {self.policy} k={self.k}"

    @property
    def file_name(self) -> str:
        """The name with only letters, digits, ``_`` and ``-``."""
        return "".join(c if c.isalnum() or c in "-_" else "_" for c in self.name.replace("=", ""))

    @property
    def is_control(self) -> bool:
        """Whether it is a control."""
        return self.policy == CONTROL

    @property
    def key(self) -> str:
        """Key of the hook in ``default_hooks``."""
        if self.threshold is not None:
            return "rlt"
        return "tome" if self.r is not None else "eventful"

    def apply(self, cfg: Config) -> Config:
        """Copy of a config without methods, with this method."""
        cfg = copy.deepcopy(cfg)
        if self.hook is not None:
            hooks = ConfigDict(cfg.get("default_hooks") or {})
            hooks[self.key] = ConfigDict(copy.deepcopy(dict(self.hook)))
            cfg.default_hooks = hooks
        return cfg

    def config_lines(self) -> str:
        """Lines for a config that inherits from the dense one."""
        if self.hook is None:
            return ""
        return f"default_hooks = dict(\n    {self.key}={_source(self.hook)},\n)"

    def command_line(self) -> str:
        """The same for ``--cfg-options``."""
        if self.hook is None:
            return ""
        return " ".join(_options(f"default_hooks.{self.key}", self.hook))


def eventful_point(
    k: int,
    attention: str = "exact",
    policy: str = "TopK",
    each: Sequence[str] = (),
    **options: Any,
) -> OperatingPoint:
    """Eventful with a policy with k tokens.

    Args:
        k: Tokens.
        attention: The attention mode.
        policy: Name of a registered policy with an argument ``k``.
        each: Parts of a detector that get a policy each; empty for a common one.
        **options: Further arguments of :class:`mmvitaccel.EventfulHook`.
    """
    own = dict(type=policy, k=k)
    hook = dict(
        type="mmvitaccel.EventfulHook",
        policy={part: dict(own) for part in each} or own,
        attention=attention,
        **options,
    )
    return OperatingPoint(attention, policy, k=k, hook=hook)


def tome_point(r: int) -> OperatingPoint:
    """ToMe that merges r tokens in each block."""
    return OperatingPoint("ToMe", r=r, hook=dict(type="mmvitaccel.ToMeHook", r=r))


def rlt_point(threshold: float) -> OperatingPoint:
    """Run-length tokenization with a threshold."""
    hook = dict(type="mmvitaccel.RLTHook", threshold=threshold)
    return OperatingPoint("RLT", threshold=threshold, hook=hook)


def points_of(
    k: Sequence[int], attention: Sequence[str], policies: Sequence[str], r: Sequence[int],
    thresholds: Sequence[float] = (), **options: Any,
) -> list[OperatingPoint]:  # fmt: skip
    """The dense point, all combinations of mode, policy and k, all r and all thresholds, each once.

    Args:
        k: Tokens that pass Eventful's gates.
        attention: Its attention modes.
        policies: Names of its policies.
        r: Tokens that ToMe merges in each block.
        thresholds: Of run-length tokenization.
        **options: See :func:`eventful_point`.

    Raises:
        UserError: A number is out of range, or a policy is unknown or has no k.
    """
    if not (k or r or thresholds):
        raise UserError(
            "nothing to sweep over: give --k for Eventful, --r for ToMe, --rlt for run-length "
            "tokenization, or several."
        )
    for option, values in (("k", k), ("r", r)):
        wrong = next((value for value in values if value < 1), None)
        if wrong is not None:
            raise UserError(f"--{option} {wrong}: give whole numbers, at least 1.")
    wrong = next((value for value in thresholds if not value >= 0), None)
    if wrong is not None:
        raise UserError(f"--rlt {wrong}: give thresholds of at least 0, such as 0.1.")
    for policy in policies:
        _check_policy(policy)
    eventful = [
        eventful_point(tokens, mode, policy, **options)
        for mode in attention for policy in policies for tokens in k
    ]  # fmt: skip
    found = [OperatingPoint(DENSE), *eventful, *map(tome_point, r), *map(rlt_point, thresholds)]
    return list(dict.fromkeys(found))


def _check_policy(name: str) -> None:
    known = POLICIES.module_dict
    with_k = sorted(n for n, cls in known.items() if "k" in inspect.signature(cls).parameters)
    if name not in with_k:
        what = "has no k to sweep over" if name in known else "is not registered"
        raise UserError(f"--eventful-policy {name} {what}; give {' or '.join(with_k)}.")


def _source(value: Any) -> str:
    """A hook's config as Python."""
    if isinstance(value, Mapping):
        return f"dict({', '.join(f'{key}={_source(own)}' for key, own in value.items())})"
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def _options(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, own in value.items():
            yield from _options(f"{prefix}.{key}", own)
    else:
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        yield f"{prefix}={text}"
