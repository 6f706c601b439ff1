"""Formulas for the multiply-adds of operators: torch's table, additions, and registered ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._pytree import tree_map

Formula = Callable[..., int]
_FORMULAS: dict[Any, Formula] = {}

# Parts of names (between underscores) of aten operators with multiply-adds.
_MULTIPLIES = re.compile(
    r"\w*mm|matmul|mv|addmv|v?dot|addr|ger|(tri|bi)?linear|conv(olution)?(\dd)?|attention"
    r"|multihead|cdist|pdist|lstm|gru|rnn|fft"
)
# Namespaces of torch without multiply-adds; operators of other libraries may have some.
_IDLE_NAMESPACES = {"prim", "prims", "debugprims", "profiler", "c10d", "_c10d_functional"}


def register_macs_formula(*operators: Any) -> Callable[[Formula], Formula]:
    """Register a formula for the multiply-adds of operators.

    Args:
        *operators: ``torch.ops.<namespace>.<name>``, one or more.

    Returns:
        A decorator for the formula. It is called with the operator's own arguments, every tensor
        replaced by its shape, and ``out_shape``; it returns multiply-adds.

    Raises:
        TypeError: An operator is not a ``torch.ops`` entry.

    Examples:
        >>> @register_macs_formula(torch.ops.mylib.gathered_linear)
        ... def _(x_shape, weight_shape, index_shape, out_shape=None, **kwargs):
        ...     return index_shape[0] * prod(weight_shape)
    """
    for operator in operators:
        if not isinstance(operator, torch._ops.OpOverloadPacket):
            raise TypeError(
                f"register_macs_formula: {operator!r} is a {type(operator).__name__}; "
                "give the operator as torch.ops.<namespace>.<name>."
            )

    def register(formula: Formula) -> Formula:
        _FORMULAS.update(dict.fromkeys(operators, formula))
        return formula

    return register


def _aten(*names: str) -> list[Any]:
    """The named aten operators that exist in this version of torch."""
    return [getattr(torch.ops.aten, name) for name in names if hasattr(torch.ops.aten, name)]


# torch has no formula for the CPU's fused kernel, and that of 2.1 refuses grouped queries
@register_macs_formula(
    *_aten(
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
        "_scaled_dot_product_attention_math_for_mps",
    )
)
def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Scores and weighted sum; q (B, H, N, D), k (B, H', M, D), v (B, H', M, Dv)."""
    return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


@register_macs_formula(*_aten("_scaled_dot_product_flash_attention_for_cpu_backward"))
def _attention_backward(_grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Recomputed scores, and the gradients of weights, v, q and k."""
    return prod(q[:-1]) * k[-2] * (3 * q[-1] + 2 * v[-1])


@register_macs_formula(*_aten("_native_multi_head_attention"))
def _multi_head(q: Any, k: Any, _v: Any, dim: int, *_: Any, **__: Any) -> int:
    """``nn.MultiheadAttention``'s inference path: four projections of width dim, two products."""
    batch, queries, keys = q[0], q[1], k[1]
    return batch * dim * (2 * dim * (queries + keys) + 2 * queries * keys)


@register_macs_formula(*_aten("_transformer_encoder_layer_fwd"))
def _encoder_layer(x: Any, dim: int, *args: Any, **__: Any) -> int:
    """``nn.TransformerEncoderLayer``'s inference path: attention, then two linear layers."""
    batch, tokens, _ = x
    ffn_weight = args[12]
    return _multi_head(x, x, x, dim) + 2 * batch * tokens * prod(ffn_weight)


@register_macs_formula(*_aten("addmm_", "_addmm_activation"))
def _addmm(_bias: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return a[0] * a[1] * b[1]


@register_macs_formula(*_aten("baddbmm_", "addbmm", "addbmm_"))
def _batched_addmm(_bias: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return prod(a) * b[2]


@register_macs_formula(*_aten("mv", "dot", "vdot"))
def _vector_product(a: Any, *_: Any, **__: Any) -> int:
    return prod(a)


@register_macs_formula(*_aten("addmv", "addmv_"))
def _addmv(_bias: Any, a: Any, *_: Any, **__: Any) -> int:
    return prod(a)


def all_formulas() -> dict[Any, Callable[[Any, Any, Any], int]]:
    """All formulas, as ``f(args, kwargs, out)`` in multiply-adds."""
    return {**_torch_formulas(), **{op: _given_shapes(f) for op, f in _FORMULAS.items()}}


def may_multiply(func: Any) -> bool:
    """Whether an operator may have multiply-adds, by its name; True if unknown."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace == "aten":
        return any(_MULTIPLIES.fullmatch(part) for part in name.split("_"))
    return namespace not in _IDLE_NAMESPACES


def _torch_formulas() -> dict[Any, Callable[[Any, Any, Any], int]]:
    # torch 2.1's formulas take shapes, later ones tensors; the table's name differs too.
    if not hasattr(flop_counter, "flop_registry"):
        return {op: _given_shapes(f, 2) for op, f in flop_counter.flop_mapping.items()}
    return {op: _given_tensors(f) for op, f in flop_counter.flop_registry.items()}


def _given_shapes(formula: Formula, unit: int = 1) -> Callable[[Any, Any, Any], int]:
    def macs(args: Any, kwargs: Any, out: Any) -> int:
        args, kwargs, out = tree_map(_shape, (args, kwargs, out))
        return formula(*args, **kwargs, out_shape=out) // unit

    return macs


def _given_tensors(formula: Formula) -> Callable[[Any, Any, Any], int]:
    return lambda args, kwargs, out: formula(*args, **kwargs, out_val=out) // 2


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else value
