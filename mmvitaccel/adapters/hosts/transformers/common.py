"""What the vision transformers of Hugging Face's transformers have in common.

Its models take named arguments that change what a call reads: hidden states behind every layer, or
attention weights, which the methods do not make.
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
    """The reason why a model is not supported; warns where its version was not tested."""
    version = str(getattr(sys.modules.get("transformers"), "__version__", "unknown"))
    if version.partition(".")[0] != TESTED.partition(".")[0]:
        return (
            f"it comes from transformers {version}, whose models have other parts than those of "
            f"{TESTED}, the version tested; install that one"
        )
    if version.split(".")[:2] != TESTED.split(".")[:2]:
        warnings.warn(
            f"{class_name(model)} comes from transformers {version}; tested is {TESTED}, so "
            "compare its output at r=0 (ToMe) or with everything passing (Eventful) before use.",
            stacklevel=4,
        )
    return _why_not_this_attention(model)


def _why_not_this_attention(model: nn.Module) -> str | None:
    found = getattr(model.config, "_attn_implementation", None) or "eager"
    if found not in _ATTENTIONS:
        return (
            f"its attention is {found!r}, and the steps here stand for {' and '.join(_ATTENTIONS)}"
            "; call set_attn_implementation('sdpa')"
        )
    return None


def reads(blocks: Callable[[nn.Module], Sequence[nn.Module]]) -> Callable[..., Iterable[int]]:
    """Which blocks' tokens a call reads beyond the last one's: all, if it asks for hidden states.

    The function that comes back raises ValueError for calls that ask for attention weights, and
    for a model whose attention was set to one that is not supported.
    """

    def asked(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterable[int]:
        def wants(name: str) -> Any:
            return kwargs.get(name, getattr(model.config, name, False))

        if wants("output_attentions"):
            raise ValueError(
                f"{class_name(model)} was asked for attention weights (output_attentions), which "
                "are not made while a method is on it; call it without, or remove the method."
            )
        reason = _why_not_this_attention(model)
        if reason is not None:
            raise ValueError(f"{class_name(model)} cannot run with a method on it: {reason}.")
        return range(len(blocks(model))) if wants("output_hidden_states") else ()

    return asked


def enter(
    block: nn.Module, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> BlockInput:
    """The arguments of a layer; masks are refused."""
    if attention_mask is not None or kwargs.get("is_causal"):
        raise ValueError(
            f"{class_name(block)} was called with an attention mask: positions change when tokens "
            "are merged or left out, so masks are not supported; call the model without."
        )
    return BlockInput(hidden_states)


def split(attn: nn.Module, h: Tensor, names: Sequence[str], num_heads: int) -> tuple[Tensor, ...]:
    """Tokens (B, M, C) by three linear layers into queries, keys, values (B, H, M, D)."""
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
    """A layer with separate linear layers for queries, keys and values.

    Args:
        names: Classes of the layer below ``transformers.models``.
        attention_names: Classes of its attention.
        attention: Its name in the layer; the names that follow are attributes of it.
        out: The output projection.
        heads: The number of heads.
        scale: Factor of the logits.
        dropout: Share of the weights dropped in training.
        norms: The layer's two norms.
        finishes: Ends of its two branches.
        **more: Other fields of :class:`BlockSpec`.
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
    """A family whose tokens are read behind the last block, and further where a call asks."""
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
