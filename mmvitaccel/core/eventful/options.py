"""Options of eventful blocks (Eventful Transformers, arXiv 2308.13494, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mmvitaccel.arguments import one_of, whole_number, with_methods
from mmvitaccel.core.eventful.gates.gate import REFERENCES
from mmvitaccel.core.eventful.modes.mode import AttentionMode, TokenwiseAttention

GATE_POSITIONS = ("after_norm", "before_norm")


@dataclass(frozen=True)
class EventfulOptions:
    """Options of eventful blocks.

    Attributes:
        attention: Attention mode of global blocks.
        gate_position: ``after_norm`` or ``before_norm``: input of the first and the last gate.
        reference: ``last_passed`` (the paper's gate) or ``last_frame`` (STGT, a baseline).
        kv_pool_size: Side in tokens of the squares over which keys and values of global blocks are
            averaged (section 4.4); 1 for no pooling.
        buffer_dtype: Storage dtype of tokens, queries, keys, values and results; None for their
            own. Values are rounded once, when they are stored. Running sums stay in single
            precision.

    Raises:
        ValueError: A name is unknown, the pool size is below 1, or the dtype is not floating-point.
    """

    attention: AttentionMode = field(default_factory=TokenwiseAttention)
    gate_position: str = "after_norm"
    reference: str = "last_passed"
    kv_pool_size: int = 1
    buffer_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        with_methods("Eventful", "attention", self.attention, "start", "step")
        known = {"gate_position": GATE_POSITIONS, "reference": REFERENCES}
        for name, choices in known.items():
            one_of("Eventful", name, getattr(self, name), choices)
        size = whole_number("Eventful", "kv_pool_size", self.kv_pool_size, least=1, of="tokens")
        object.__setattr__(self, "kv_pool_size", size)
        buffer_dtype_of(self.buffer_dtype)


def buffer_dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype from its name; a dtype or None is returned unchanged.

    Raises:
        ValueError: The dtype does not exist or is not floating-point.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not isinstance(found, torch.dtype):
        raise ValueError(
            f"Eventful: buffer_dtype={dtype!r} is not a dtype of torch; set 'bfloat16', "
            f"'float16' or None."
        )
    if found is not None and not found.is_floating_point:
        raise ValueError(
            f"Eventful: buffer_dtype={found} is not a floating-point dtype; set 'bfloat16', "
            f"'float16' or None."
        )
    return found
