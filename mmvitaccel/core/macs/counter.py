"""Counts the multiply-adds that a model executes, without skipped work.

The unit is the multiply-add, counted as one (papers and the OpenMMLab tools do the same; torch's
own counter says two). Matrix products, convolutions and fused attention are counted, in any module
or function. Element-wise arithmetic, normalisation, activations, softmax and interpolation are not
counted. An operator with multiply-adds but without a formula is reported in
:attr:`MacsReport.uncounted`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mmvitaccel.core.macs.formulas import all_formulas, may_multiply, register_macs_formula

__all__ = ["MacsCounter", "MacsReport", "count_macs", "register_macs_formula"]


@dataclass(frozen=True)
class MacsReport:
    """Result of a :class:`MacsCounter`.

    Attributes:
        total: Multiply-adds of everything that was executed.
        by_module: Multiply-adds by dotted module name, including submodules, in the model's order;
            only modules with counted operators. Operators outside named modules are only in
            ``total``.
        by_operator: Multiply-adds by operator name.
        detail: Multiply-adds by the module that directly ran the operator (empty for none) and the
            operator's name, for example to sum linear layers and attention products.
        params: Parameters (elements) of the model, 0 without one.
        uncounted: Number of calls of operators without a formula that have multiply-adds, or whose
            work is unknown because they belong to another library.
    """

    total: int
    by_module: dict[str, int]
    by_operator: dict[str, int]
    detail: dict[tuple[str, str], int]
    params: int
    uncounted: dict[str, int]

    def parts(self, depth: int = 1) -> dict[str, int]:
        """Multiply-adds of modules with names of ``depth`` parts; 1 gives backbone, neck, head."""
        return {name: n for name, n in self.by_module.items() if name.count(".") == depth - 1}


class _Counting(TorchDispatchMode):
    """Dispatch mode that attributes the multiply-adds of each operator to the current module.

    ``FlopCounterMode`` is not used, only its formulas: on torch 2.14 it decomposes operators that
    return views of parameters, which autograd refuses under ``no_grad``, and on 2.1 it counts
    nothing under ``inference_mode``.
    """

    def __init__(self, stack: list[str]) -> None:
        super().__init__()
        self.stack = stack
        self.formulas = all_formulas()
        self.macs: Counter[tuple[str, str]] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            self.uncounted[str(func)] += 1
            return func(*args, **kwargs)
        packet = func._overloadpacket
        formula = self.formulas.get(packet)
        if formula is None and not _returns_view(func):
            # Composite operators (aten::linear) are not decomposed for inference tensors
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            self.macs[self.stack[-1], str(packet)] += formula(args, kwargs, out)
        elif may_multiply(func):
            self.uncounted[str(packet)] += 1
        return out


def _returns_view(func: Any) -> bool:
    """Whether an operator's output shares memory with its input."""
    return any(value.alias_info is not None for value in func._schema.returns)


class _Threads(threading.local):
    """Number of open counters in a thread."""

    open = 0


_THREADS = _Threads()


def is_counting() -> bool:
    """Whether a :class:`MacsCounter` is open in this thread, which slows down execution."""
    return _THREADS.open > 0


class MacsCounter:
    """Count the multiply-adds of everything that runs inside a ``with`` block.

    Each block starts at zero; read the report after it. The model is not changed: modules are
    tracked through torch's global forward hooks, which are removed at the end of the block, also
    after an error. Counting works with and without gradients and under ``inference_mode``; a
    backward pass inside the block is counted as well, outside any module.

    Modules are followed by their calls. When ``forward`` of a module is called directly, its own
    work is attributed to the calling module, and its submodules' work to them. The work of other
    threads is not counted.

    Args:
        model: Model for the module names and the number of parameters in the report.

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
        self._counting: _Counting | None = None
        self._opened: ExitStack | None = None

    def __enter__(self) -> MacsCounter:
        if self._opened is not None:
            raise RuntimeError("MacsCounter: this counter is counting; use a second one inside.")
        stack = [""]
        if self.model is not None:
            self._names = {module: name for name, module in self.model.named_modules()}

        # Global hooks run for all threads, but only operators of this thread are counted
        thread = threading.get_ident()

        def enter_module(module: nn.Module, _args: Any) -> None:
            if threading.get_ident() == thread:
                stack.append(self._names.get(module, stack[-1]))

        def leave_module(_module: nn.Module, _args: Any, _out: Any) -> None:
            if threading.get_ident() == thread:
                stack.pop()

        with ExitStack() as opened:
            hooks = (
                register_module_forward_hook(leave_module, always_call=True),
                register_module_forward_pre_hook(enter_module),
            )
            for hook in hooks:
                opened.callback(hook.remove)
            self._counting = opened.enter_context(_Counting(stack))
            self._opened = opened.pop_all()
        _THREADS.open += 1
        return self

    def __exit__(self, *exc_info: Any) -> None:
        opened, self._opened = self._opened, None
        _THREADS.open -= 1
        opened.close()

    def report(self) -> MacsReport:
        """Multiply-adds of the last block.

        Raises:
            RuntimeError: Nothing was counted yet.
        """
        if self._counting is None:
            raise RuntimeError(
                "MacsCounter: nothing was counted yet; run the model inside `with counter:` first."
            )
        by_module: Counter[str] = Counter()
        by_operator: Counter[str] = Counter()
        for (name, operator), macs in self._counting.macs.items():
            by_operator[operator] += macs
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                by_module[".".join(parts[:end])] += macs
        return MacsReport(
            total=sum(by_operator.values()),
            by_module={n: by_module[n] for n in self._names.values() if n and by_module[n]},
            by_operator={name: macs for name, macs in by_operator.items() if macs},
            detail={key: macs for key, macs in self._counting.macs.items() if macs},
            params=0 if self.model is None else sum(p.numel() for p in self.model.parameters()),
            uncounted=dict(self._counting.uncounted),
        )


def count_macs(model: nn.Module, *inputs: Any, **kwargs: Any) -> MacsReport:
    """Count the multiply-adds of one ``model(*inputs, **kwargs)``, in eval mode, without gradients.

    The training mode of the model and of each submodule is restored.

    Args:
        model: Any module; it is not changed.
        *inputs: Passed to it.
        **kwargs: Passed to it.

    Returns:
        The report, for the whole batch.
    """
    counter = MacsCounter(model)
    with _eval_mode(model), torch.no_grad(), counter:
        model(*inputs, **kwargs)
    return counter.report()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Set eval mode in the block, and restore each module's mode afterwards."""
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
