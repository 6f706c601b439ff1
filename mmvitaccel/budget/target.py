"""The target of a budget: the cost of a frame, in one of four units."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmvitaccel.arguments import number, one_of

_WORDS = {
    "milliseconds": "{:g} ms a frame",
    "macs": "{:g} multiply-adds a frame",
    "fps": "{:g} frames a second",
    "share": "{:.4g} % of the dense model's multiply-adds",
}
_TEXT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|fps|%|[MGT])")
_PREFIXES = {"M": 1e6, "G": 1e9, "T": 1e12}
HELP = "200ms, 2fps, 40% (of the dense model's multiply-adds) or 90G (multiply-adds)"


@dataclass(frozen=True)
class Target:
    """A budget of one frame.

    Attributes:
        kind: ``'milliseconds'``, ``'macs'`` (multiply-adds), ``'fps'`` or ``'share'`` (of the
            multiply-adds of the dense model).
        value: In the unit of its kind; a share is above 0 and at most 1.

    Raises:
        ValueError: The value is not a number above 0, or a share above 1.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        one_of("Budget", "kind", self.kind, _WORDS)
        value = number("Budget", self.kind, self.value, above=0)
        object.__setattr__(self, "value", value)
        if self.kind == "share" and value > 1:
            raise ValueError(
                f"Budget: share={value:g} must be at most 1, which is the dense model; write "
                "0.4 for 40 %."
            )

    @classmethod
    def of(cls, **given: float | None) -> Target:
        """The one target among ``milliseconds``, ``macs``, ``fps`` and ``share``.

        Raises:
            ValueError: None or several are given, or the value is invalid.
            TypeError: The kind is unknown.
        """
        unknown = sorted(set(given) - set(_WORDS))
        if unknown:
            raise TypeError(
                f"Budget: {unknown[0]!r} is not a target; give one of {', '.join(_WORDS)}."
            )
        named = {kind: value for kind, value in given.items() if value is not None}
        if len(named) != 1:
            what = " and ".join(f"{k}={v!r}" for k, v in named.items()) or "none"
            raise ValueError(
                f"Budget: {what} given, but exactly one target is needed; give one of "
                f"{', '.join(_WORDS)}."
            )
        return cls(*named.popitem())

    @classmethod
    def parse(cls, text: str) -> Target:
        """A target from text: ``200ms``, ``2fps``, ``40%``, ``90G``, also with M or T.

        Raises:
            ValueError: The text is not a target.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"Budget: {text!r} is not a valid budget; give {HELP}.")
        amount, unit = float(found[1]), found[2]
        if unit in _PREFIXES:
            return cls("macs", amount * _PREFIXES[unit])
        kind = {"ms": "milliseconds", "fps": "fps", "%": "share"}[unit]
        return cls(kind, amount / 100 if unit == "%" else amount)

    @property
    def timed(self) -> bool:
        """Whether the target is a time; otherwise it is a number of multiply-adds."""
        return self.kind in ("milliseconds", "fps")

    @property
    def milliseconds(self) -> float:
        """Milliseconds per frame of a target in time."""
        return 1e3 / self.value if self.kind == "fps" else self.value

    @property
    def short(self) -> str:
        """Text that :meth:`parse` reads, with four digits."""
        if self.kind == "macs":
            return f"{self.value / 1e9:.4g}G"
        unit = {"milliseconds": "ms", "fps": "fps", "share": "%"}[self.kind]
        return f"{100 * self.value if self.kind == 'share' else self.value:.4g}{unit}"

    def __str__(self) -> str:
        shown = 100 * self.value if self.kind == "share" else self.value
        if self.kind == "macs":
            shown = self.value / 1e9
            return f"{shown:.4g} G multiply-adds a frame"
        return _WORDS[self.kind].format(shown)
