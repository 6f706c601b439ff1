"""Multiply-adds that ran: counted while the model computes, so that skipped work is not in them.

The unit is the multiply-add, counted as one (papers and the OpenMMLab tools do the same; torch's
own counter says two). Counted are matrix products, convolutions and fused attention, in whatever
module or function they happen. Element-wise arithmetic, normalisation, activations, softmax and
interpolation are no multiply-adds here. An operator that multiplies and adds but has no formula
is not passed over in silence: :attr:`MacsReport.uncounted` names it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Formula = Callable[..., int]
_FORMULAS: dict[Any, Formula] = {}

# Names of aten operators that multiply and add, one part between underscores at a time.
_MULTIPLIES = re.compile(
    r"\w*mm|matmul|mv|addmv|v?dot|addr|ger|(tri|bi)?linear|conv(olution)?(\dd)?|attention"
    r"|multihead|cdist|pdist|lstm|gru|rnn|fft"
)
# Namespaces of torch's own bookkeeping; any other library's operator may multiply and add.
_IDLE_NAMESPACES = {"prim", "prims", "debugprims", "profiler", "c10d", "_c10d_functional"}


def register_macs_formula(*operators: Any) -> Callable[[Formula], Formula]:
    """Say how many multiply-adds an operator does.

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
    """Those of the named aten operators that this torch has."""
    return [getattr(torch.ops.aten, name) for name in names if hasattr(torch.ops.aten, name)]


# reason: torch leaves out the CPU's fused kernel, and its formula of 2.1 refuses grouped queries.
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
    """Scores again, then the gradients of weights, v, q and k."""
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


@dataclass(frozen=True)
class MacsReport:
    """What a :class:`MacsCounter` counted.

    Attributes:
        total: Multiply-adds of everything that ran.
        by_module: Multiply-adds by dotted module name, submodules included, in the model's order;
            only modules in which something was counted. What ran outside every named module is
            in ``total`` alone.
        by_operator: Multiply-adds by operator name.
        params: Parameters (elements) of the model, 0 without one.
        uncounted: How often each operator ran that multiplies and adds (or whose work is unknown,
            coming from another library) and has no formula.
    """

    total: int
    by_module: dict[str, int]
    by_operator: dict[str, int]
    params: int
    uncounted: dict[str, int]

    def parts(self, depth: int = 1) -> dict[str, int]:
        """Multiply-adds of the modules ``depth`` names deep; 1 gives backbone, neck, head."""
        return {name: n for name, n in self.by_module.items() if name.count(".") == depth - 1}


class _Attribution(TorchDispatchMode):
    """Sits above torch's counter: says which module an operator's count belongs to."""

    def __init__(self, counter: FlopCounterMode, stack: list[str]) -> None:
        super().__init__()
        self.counter = counter
        self.stack = stack
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        packet = func._overloadpacket
        if packet not in _FORMULAS:
            # reason: under inference_mode composite operators arrive whole (aten::linear), and
            # torch 2.1's counter knows only what they are made of.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        before = self.counter.get_total_flops()
        out = func(*args, **kwargs)
        flops = self.counter.get_total_flops() - before
        if flops:
            self.flops[self.stack[-1]] += flops
        elif _may_multiply(func) and packet not in self.counter.get_flop_counts().get("Global", ()):
            self.uncounted[str(packet)] += 1
        return out


def _may_multiply(func: Any) -> bool:
    """Whether an operator's name says that it multiplies and adds, or says nothing known."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace == "aten":
        return any(_MULTIPLIES.fullmatch(part) for part in name.split("_"))
    return namespace not in _IDLE_NAMESPACES


class MacsCounter:
    """Count the multiply-adds of whatever runs inside a ``with`` block.

    Each block starts at zero; the report is read after it. The model is not touched: modules are
    followed through torch's global forward hooks, which are gone when the block ends, also
    when it ends in an error. Counting works with and without gradients and under
    ``inference_mode``; a backward pass inside the block is counted as well, outside any module.

    Modules are followed by their calls. What a module computes itself when somebody calls its
    ``forward`` directly is booked on the module that did so, its submodules' work on itself.

    Args:
        model: Whose submodule names and parameters the report is to give.

    Examples:
        >>> counter = MacsCounter(model)
        >>> for frame in video:
        ...     with counter:
        ...         model(frame)
        ...     print(counter.report().total)
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model = model
        self._names: dict[nn.Module, str] = {}
        self._attribution: _Attribution | None = None
        self._opened: ExitStack | None = None

    def __enter__(self) -> MacsCounter:
        if self._opened is not None:
            raise RuntimeError("MacsCounter: this counter is counting; use a second one inside.")
        stack = [""]
        if self.model is not None:
            self._names = {module: name for name, module in self.model.named_modules()}
        in_flops = {op: _doubled(formula) for op, formula in _FORMULAS.items()}

        def enter_module(module: nn.Module, _args: Any) -> None:
            stack.append(self._names.get(module, stack[-1]))

        def leave_module(_module: nn.Module, _args: Any, _out: Any) -> None:
            stack.pop()

        with ExitStack() as opened:
            hooks = (
                register_module_forward_hook(leave_module, always_call=True),
                register_module_forward_pre_hook(enter_module),
            )
            for hook in hooks:
                opened.callback(hook.remove)
            counter = FlopCounterMode(display=False, custom_mapping=in_flops)
            opened.enter_context(counter)
            self._attribution = opened.enter_context(_Attribution(counter, stack))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        opened, self._opened = self._opened, None
        opened.close()

    def report(self) -> MacsReport:
        """What ran in the last block.

        Raises:
            RuntimeError: Nothing was counted yet.
        """
        if self._attribution is None:
            raise RuntimeError(
                "MacsCounter: nothing was counted yet; run the model inside `with counter:` first."
            )
        counter, own = self._attribution.counter, self._attribution.flops
        inclusive: Counter[str] = Counter()
        for name, flops in own.items():
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                inclusive[".".join(parts[:end])] += flops
        by_operator = counter.get_flop_counts().get("Global", {})
        return MacsReport(
            total=counter.get_total_flops() // 2,
            by_module={n: inclusive[n] // 2 for n in self._names.values() if n and inclusive[n]},
            by_operator={str(op): flops // 2 for op, flops in by_operator.items() if flops},
            params=0 if self.model is None else sum(p.numel() for p in self.model.parameters()),
            uncounted=dict(self._attribution.uncounted),
        )


def count_macs(model: nn.Module, *inputs: Any, **kwargs: Any) -> MacsReport:
    """Count the multiply-adds of one ``model(*inputs, **kwargs)``, in eval mode, without gradients.

    The training mode of the model and of each submodule is afterwards as it was.

    Args:
        model: Any module; its device, dtype and parameters stay as they are.
        *inputs: Passed to it.
        **kwargs: Passed to it.

    Returns:
        The report; ``macs`` are of the whole batch that was given.
    """
    counter = MacsCounter(model)
    with _eval_mode(model), torch.no_grad(), counter:
        model(*inputs, **kwargs)
    return counter.report()


def _doubled(formula: Formula) -> Formula:
    """A formula in torch's unit, two floating-point operations for each multiply-add."""
    return lambda *args, **kwargs: 2 * formula(*args, **kwargs)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, each module's own mode restored after."""
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):
        model.eval()
    try:
        yield
    finally:
        # Parents come first: train() reaches every submodule, which then gets its own mode back.
        for module, training in modes.items():
            if module.training is not training:
                module.train(training)
