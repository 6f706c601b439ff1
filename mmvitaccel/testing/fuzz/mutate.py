"""Seeded mutations of bytes, and of nested values as in a json or a checkpoint."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

_MAGIC = (b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
_MOST_MUTATIONS = 6
_MOST_PLACES = 2000

#: Values of unexpected types and sizes.
ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, 2**63, float("nan"), float("inf"), -float("inf"),
    "", "a", "\0", "\ud800", "7", "../../etc/passwd", "x" * 5000, [], {}, [[]], [None], {"": None},
    {"a": {"b": [1]}}, [1, 2, 3], ["a", "b"],
)  # fmt: skip


def mutate_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Apply one to six mutations: flip, cut, remove, insert, overwrite, repeat, splice.

    Args:
        data: The input; not empty.
        others: Inputs from which parts are spliced in.
        rng: Source of randomness.
    """
    changed = bytearray(data)
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        rng.choice(_BYTE_MUTATIONS)(changed, others, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    # Headers are at the beginning and indices at the end; most other bytes are pixels or weights.
    near = min(len(data), 256)
    front, back = rng.randint(0, near), len(data) - rng.randint(0, near)
    return rng.choice((front, back, rng.randint(0, len(data))))


def _flip(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.randint(1, 64)]


def _insert(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    start = _place(data, rng)
    data[start:start] = rng.randbytes(rng.randint(1, 64))


def _overwrite(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    start, value = _place(data, rng), rng.choice(_MAGIC)
    data[start : start + len(value)] = value


def _repeat(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    start = _place(data, rng)
    data[start:start] = data[start : start + rng.randint(1, 512)]


def _splice(data: bytearray, others: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(others)
    start, length = rng.randint(0, len(other)), rng.randint(1, 4096)
    here = _place(data, rng)
    data[here : here + rng.choice((0, length))] = other[start : start + length]


_BYTE_MUTATIONS: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _flip, _cut, _remove, _insert, _overwrite, _repeat, _splice,
)  # fmt: skip


def mutate_value(value: Any, odd: Sequence[Any], rng: random.Random) -> Any:
    """Apply one to six mutations to nested dicts and lists: values, and removed or renamed keys.

    Args:
        value: The value; not changed.
        odd: Values to insert.
        rng: Source of randomness.

    Returns:
        A changed copy.
    """
    holder = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        places = list(_places(holder))[:_MOST_PLACES]
        inside, key = rng.choice(places)
        if inside is not holder and rng.random() < 0.25:
            _change_key(inside, key, rng)
        elif rng.random() < 0.15:
            other, other_key = rng.choice(places)
            inside[key] = copy.deepcopy(other[other_key])
        elif rng.random() < 0.05:
            inside[key] = _deep(rng.choice((10, 60)), rng)
        else:
            inside[key] = copy.deepcopy(rng.choice(odd))
    return holder[0]


def _places(value: Any) -> Any:
    """Yield every container of a nested value with each of its keys."""
    stack = [value]
    while stack:
        inside = stack.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        for key in keys:
            yield inside, key
            if type(inside[key]) in (dict, list):
                stack.append(inside[key])


def _change_key(inside: Any, key: Any, rng: random.Random) -> None:
    if isinstance(inside, list):
        inside.insert(key, copy.deepcopy(inside[key])) if rng.random() < 0.5 else inside.pop(key)
    elif rng.random() < 0.5:
        del inside[key]
    else:
        inside[rng.choice(("", f"{key}.0", str(key).upper(), "module." + str(key)))] = inside.pop(
            key
        )


def _deep(depth: int, rng: random.Random) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value
