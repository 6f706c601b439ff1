"""Compares running times on a machine with other load."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def alternate(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Time several functions in turn, so that disturbances affect all of them equally.

    Args:
        runs: Functions by name. Their work must be finished when they return.
        rounds: Number of measurements of each; every second round runs in reverse order.
        warmup: Rounds before these that are not measured.

    Returns:
        Seconds of each function in each round.

    Raises:
        ValueError: If ``rounds`` is not at least 1.
    """
    if rounds < 1:
        raise ValueError(f"alternate: rounds={rounds}; at least 1 is needed.")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-warmup, rounds):
        order = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in order:
            start = time.perf_counter()
            runs[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds
