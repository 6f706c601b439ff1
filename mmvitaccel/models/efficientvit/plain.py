"""Checks for hooks, replaced methods and wrappers in modules that are folded or compiled.

Folded and compiled models use only the weights of a module and never call it. A hook, a replaced
``forward`` or a wrapper such as LoRA would silently have no effect.
"""

from __future__ import annotations

from torch import nn

_KNOWN = ("torch.nn.", "mmvitaccel.", "mmengine.", "mmcv.")


def why_not_plain(module: nn.Module) -> str | None:
    """Describe what a module adds to the code of its class, or return None."""
    kind = type(module)
    if not f"{kind.forward.__module__}.".startswith(_KNOWN):
        return f"is a {kind.__module__}.{kind.__qualname__}"
    hooks = (
        module._forward_hooks, module._forward_pre_hooks,
        module._backward_hooks, module._backward_pre_hooks,
    )  # fmt: skip
    if any(hooks) or "forward" in module.__dict__:
        return "has a hook or a replaced forward"
    return None


def why_not_folded(conv: nn.Module, norm: nn.Module) -> str | None:
    """Reason why a BatchNorm cannot be folded into the preceding convolution, or None."""
    if not f"{type(conv).forward.__module__}.".startswith(_KNOWN):
        return f"its convolution {why_not_plain(conv)}"
    if conv._forward_pre_hooks or hasattr(conv, "parametrizations"):
        return "the weight of its convolution is recomputed in each call"
    reason = why_not_plain(norm)
    if reason is None and hasattr(norm, "parametrizations"):
        reason = "has a weight that is recomputed in each call"
    return reason and f"its norm {reason}"
