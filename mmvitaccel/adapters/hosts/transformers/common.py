"""Code shared by the adapters for Hugging Face's transformers.

Arguments of a call determine which tokens are returned: only the last ones, or the hidden states
after every layer. Attention weights are not available while a method is attached.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, ViTAdapter, class_name
from mmvitaccel.adapters.window_map import attention_is

#: The version of transformers that the adapters were tested with.
TESTED = "5.24.0"
MODELS = "transformers.models"
_ATTENTIONS = ("eager", "sdpa")

Steps = Callable[[nn.Module, Tensor], Tensor]


def why_not(model: nn.Module) -> str | None:
    """Reason why a model is not supported, or None; warns if its minor version is not tested."""
    version = str(getattr(sys.modules.get("transformers"), "__version__", "unknown"))
    if version.partition(".")[0] != TESTED.partition(".")[0]:
        return (
            f"it comes from transformers {version}, whose models differ from those of {TESTED}, "
            "the tested version; install that version"
        )
    if version.split(".")[:2] != TESTED.split(".")[:2]:
        warnings.warn(
            f"{class_name(model)} comes from transformers {version}; the tested version is "
            f"{TESTED}. Compare its output at r=0 (ToMe) or with all tokens passing (Eventful) "
            "before use.",
            stacklevel=4,
        )
    return _why_not_this_attention(model)


def _why_not_this_attention(model: nn.Module) -> str | None:
    found = getattr(model.config, "_attn_implementation", None) or "eager"
    if found not in _ATTENTIONS:
        return (
            f"its attention is {found!r}, but only {' and '.join(_ATTENTIONS)} are supported; call "
            "set_attn_implementation('sdpa')"
        )
    return None


def reads(blocks: Callable[[nn.Module], Sequence[nn.Module]]) -> Callable[..., Iterable[int]]:
    """Return a function that gives the blocks whose tokens a call returns.

    All blocks if the call requests hidden states, otherwise none besides the last one. The function
    raises a ValueError if a call requests attention weights, or if the attention implementation of
    the model is not supported.

    Args:
        blocks: Returns the blocks of the model.
    """

    def asked(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterable[int]:
        def wants(name: str) -> Any:
            return kwargs.get(name, getattr(model.config, name, False))

        if wants("output_attentions"):
            raise ValueError(
                f"{class_name(model)} was called with output_attentions, but attention weights are "
                "not available while a method is attached; call it without, or remove the method."
            )
        reason = _why_not_this_attention(model)
        if reason is not None:
            raise ValueError(f"{class_name(model)} cannot run with a method attached: {reason}.")
        return range(len(blocks(model))) if wants("output_hidden_states") else ()

    return asked


def enter(
    block: nn.Module, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> BlockInput:
    """Read the arguments of a layer.

    Args:
        block: The layer.
        hidden_states: Tokens (B, N, C).
        attention_mask: Not supported.
        **kwargs: Further arguments; ``is_causal`` is not supported.

    Raises:
        ValueError: There is an attention mask, or the attention is causal.
    """
    if attention_mask is not None or kwargs.get("is_causal"):
        raise ValueError(
            f"{class_name(block)} was called with an attention mask: positions change when tokens "
            "are merged or dropped, so masks are not supported; call the model without one."
        )
    return BlockInput(hidden_states)


def split(attn: nn.Module, h: Tensor, names: Sequence[str], num_heads: int) -> tuple[Tensor, ...]:
    """Apply three linear layers to tokens (B, M, C): queries, keys and values (B, H, M, D)."""
    parts = (getattr(attn, name)(h) for name in names)
    return tuple(part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in parts)


def layer_spec(
    names: Sequence[str],
    attention_names: Sequence[str],
    *,
    attention: str = "attention",
    out: str = "o_proj",
    heads: str = "num_attention_heads",
    scale: str = "scaling",
    dropout: str = "attention_dropout",
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after"),
    finishes: tuple[Steps, Steps] = (lambda block, y: y, lambda block, y: y),
    **more: Any,
) -> BlockSpec:
    """Describe a layer with separate linear layers for queries, keys and values.

    Args:
        names: Classes of the layer, without ``transformers.models``.
        attention_names: Classes of its attention, also without it.
        attention: Name of the attention in the layer. The next four are names of its attributes.
        out: Output projection.
        heads: Number of heads.
        scale: Scale of the logits.
        dropout: Dropout of the attention weights in training.
        norms: Names of the two norms in the layer.
        finishes: Functions of the layer and the output of a branch, before the residual is added.
        **more: Further fields of :class:`BlockSpec`, which take precedence.
    """

    def attn(block: nn.Module) -> nn.Module:
        return getattr(block, attention)

    def qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, ...]:
        return split(attn(block), h, ("q_proj", "k_proj", "v_proj"), getattr(attn(block), heads))

    own = dict(
        classes=tuple(f"{MODELS}.{name}" for name in names),
        num_heads=lambda block: getattr(attn(block), heads),
        scale=lambda block: getattr(attn(block), scale),
        attn_drop=lambda block: getattr(attn(block), dropout) if block.training else 0.0,
        norm1=lambda block: getattr(block, norms[0]),
        qkv=qkv,
        project=lambda block, o, h: getattr(attn(block), out)(o),
        finish1=finishes[0],
        norm2=lambda block: getattr(block, norms[1]),
        mlp=lambda block, h: block.mlp(h),
        finish2=finishes[1],
        enter=enter,
        refuse=attention_is([f"{MODELS}.{name}" for name in attention_names], attn),
        bypassed=(attention,),
    )
    return BlockSpec(**{**own, **more})


def adapter(
    name: str,
    classes: Sequence[str],
    blocks: Callable[[nn.Module], Sequence[nn.Module]],
    spec: BlockSpec,
    prefix: Callable[[nn.Module], tuple[str, ...]],
    **more: Any,
) -> ViTAdapter:
    """Make the adapter of a family that returns the tokens of its last block.

    Calls may request those of other blocks too, see :func:`reads`.

    Args:
        name: Name of the family.
        classes: Classes of the model, without ``transformers.models``.
        blocks: Returns the blocks of the model.
        spec: Describes the blocks.
        prefix: Returns the kinds of the tokens before the patches.
        **more: Further fields of :class:`ViTAdapter`.
    """
    return ViTAdapter(
        name=f"transformers {name}",
        classes=tuple(f"{MODELS}.{name}" for name in classes),
        blocks=blocks,
        specs=(spec,),
        prefix=prefix,
        entries={"forward": lambda model: [len(blocks(model)) - 1]},
        asked=reads(blocks),
        refuse=why_not,
        **more,
    )
