"""How eventful blocks run (Eventful Transformers, arXiv 2308.13494, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mmvitaccel.core.eventful.gates.gate import REFERENCES
from mmvitaccel.core.eventful.modes.mode import AttentionMode, TokenwiseAttention

GATE_POSITIONS = ("after_norm", "before_norm")


@dataclass(frozen=True)
class EventfulOptions:
    """How blocks run incrementally.

    Attributes:
        attention: Mode of the global blocks.
        gate_position: ``after_norm`` or ``before_norm``: where the first and the last gate look.
        reference: ``last_passed`` (the paper's gate) or ``last_frame`` (STGT, a baseline).
        kv_pool_size: Keys and values of global blocks are averaged over squares of this many
            tokens a side (section 4.4); 1 for no pooling.
        buffer_dtype: In which tokens, queries, keys, values and results are kept; None for their
            own. What is kept is rounded once and used as it is kept, and nothing is summed up in
            it: running sums stay in single precision.

    Raises:
        ValueError: A name that is not known, a pool size below 1, or no floating-point dtype.
    """

    attention: AttentionMode = field(default_factory=TokenwiseAttention)
    gate_position: str = "after_norm"
    reference: str = "last_passed"
    kv_pool_size: int = 1
    buffer_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        known = {"gate_position": GATE_POSITIONS, "reference": REFERENCES}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"Eventful: {name}={getattr(self, name)!r} must be one of {', '.join(choices)}."
                )
        if self.kv_pool_size < 1:
            raise ValueError(f"Eventful: kv_pool_size={self.kv_pool_size} must be at least 1.")
        buffer_dtype_of(self.buffer_dtype)


def buffer_dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype from its name; one, or None, comes back.

    Raises:
        ValueError: There is no such dtype, or it holds no fractions.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not isinstance(found, torch.dtype):
        raise ValueError(
            f"Eventful: buffer_dtype={dtype!r} is no dtype of torch; set 'bfloat16', 'float16' or "
            "None."
        )
    if found is not None and not found.is_floating_point:
        raise ValueError(
            f"Eventful: buffer_dtype={found} holds no fractions; set 'bfloat16', 'float16' or None."
        )
    return found
