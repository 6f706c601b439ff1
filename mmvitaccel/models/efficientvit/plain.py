"""Whether a module computes what its class in this network says, for forms that replace it.

Folding and compiling read weights and never call what they replace. A hook, a ``forward`` of its
own or a wrapper such as LoRA's would be dropped without a word.
"""

from __future__ import annotations

from torch import nn

_KNOWN = ("torch.nn.", "mmvitaccel.", "mmengine.", "mmcv.")


def why_not_plain(module: nn.Module) -> str | None:
    """What a module does beside its class's work, or None."""
    kind = type(module)
    if not f"{kind.forward.__module__}.".startswith(_KNOWN):
        return f"is a {kind.__module__}.{kind.__qualname__}"
    hooks = (
        module._forward_hooks, module._forward_pre_hooks,
        module._backward_hooks, module._backward_pre_hooks,
    )  # fmt: skip
    if any(hooks) or "forward" in module.__dict__:
        return "has a hook or a forward of its own"
    return None


def why_not_folded(conv: nn.Module, norm: nn.Module) -> str | None:
    """Why a BatchNorm cannot be folded into the convolution before it, or None."""
    if not f"{type(conv).forward.__module__}.".startswith(_KNOWN):
        return f"its convolution {why_not_plain(conv)}"
    if conv._forward_pre_hooks or hasattr(conv, "parametrizations"):
        return "the weight of its convolution is computed anew for each call"
    reason = why_not_plain(norm)
    if reason is None and hasattr(norm, "parametrizations"):
        reason = "has a weight that is computed anew for each call"
    return reason and f"its norm {reason}"
