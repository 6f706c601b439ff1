"""EfficientViT's attention for deployment, with fewer and larger operations and fewer copies.

Tokens have the layout (windows, tokens, channels), which is the memory layout of a map in
``torch.channels_last``, so every 1x1 convolution is a matrix product without a copy. The weights of
the query convolution include the scale of the logits, and the biases are looked up once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.core.attention.windows import from_windows, pad_map, to_windows
from mmvitaccel.models.efficientvit.attention import KEY_DIMS, WindowAttention
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.plain import why_not_plain


class TokenAttention(nn.Module):
    """A :class:`WindowAttention` for inference.

    Args:
        layer: The layer, with folded BatchNorm; its weights are copied.
    """

    def __init__(self, layer: WindowAttention) -> None:
        super().__init__()
        attn, side = layer.attn, layer.window_size
        self.window_size = side
        self.head_dims = attn.head_dims
        self.qkvs = nn.ModuleList(as_linear(qkv) for qkv in attn.qkvs)
        self.dws = nn.ModuleList(scaled(dw, KEY_DIMS**-0.5) for dw in attn.dws)
        self.proj = as_linear(attn.proj[1])
        # heads, R * R, R * R
        self.register_buffer("biases", attn.attention_bias(side, side).detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); fastest in ``torch.channels_last``."""
        height, width = x.shape[2:]
        side, x = self.window_size, x.permute(0, 2, 3, 1)
        if height <= side and width <= side:
            out = self._attend(x.flatten(1, 2), height, width)
            return out.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        windows = self._attend(to_windows(pad_map(x, side), side), side, side)
        return from_windows(windows, side, (height, width)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor, height: int, width: int) -> Tensor:
        """Attention over all tokens (B, height * width, C) of a window."""
        side, biases = self.window_size, self.biases
        if height != side or width != side:
            biases = biases.unflatten(2, (side, side)).unflatten(1, (side, side))
            biases = biases[:, :height, :width, :height, :width].flatten(3).flatten(1, 2)
        split = (KEY_DIMS, KEY_DIMS, self.head_dims)
        groups = x.split(self.head_dims, dim=2)
        head, heads = groups[0], []
        for i, (qkv, dw) in enumerate(zip(self.qkvs, self.dws)):
            if i > 0:
                head = head + groups[i]
            q, k, v = qkv(head).split(split, dim=2)
            q = dw(q.unflatten(1, (height, width)).permute(0, 3, 1, 2))
            q = q.permute(0, 2, 3, 1).flatten(1, 2)  # B, 16, H, W -> B, N, 16
            attn = torch.baddbmm(biases[i], q, k.transpose(1, 2)).softmax(dim=-1)
            head = torch.bmm(attn, v)
            heads.append(head)
        return self.proj(F.relu(torch.cat(heads, dim=2)))


@torch.no_grad()
def as_linear(layer: ConvNorm) -> nn.Linear:
    """Convert a folded 1x1 convolution to a linear layer."""
    linear = nn.Linear(layer.c.in_channels, layer.c.out_channels, device=layer.c.weight.device)
    linear = linear.to(layer.c.weight.dtype).requires_grad_(False)
    linear.weight.copy_(layer.c.weight.flatten(1))
    linear.bias.copy_(layer.c.bias)
    return linear


@torch.no_grad()
def scaled(layer: ConvNorm, factor: float) -> nn.Conv2d:
    """Copy a folded convolution and scale its output."""
    c = layer.c
    conv = nn.Conv2d(
        c.in_channels, c.out_channels, c.kernel_size, padding=c.padding, groups=c.groups
    )
    conv = conv.to(c.weight.device, c.weight.dtype).requires_grad_(False)
    conv.weight.copy_(c.weight * factor)
    conv.bias.copy_(c.bias * factor)
    return conv


def switch_to_tokens(model: nn.Module) -> nn.Module:
    """Replace every window attention in a folded model by :class:`TokenAttention`.

    Load weights first, because names in the state dict change.

    Args:
        model: Changed in place.

    Returns:
        The model, in ``torch.channels_last``.

    Raises:
        ValueError: The model has no window attention, its BatchNorm is not folded, or it has a
            hook, a replaced ``forward`` or a wrapper, which would have no effect.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, WindowAttention)}
    if not layers or not all(layer.attn.qkvs[0].is_deployed for layer in layers.values()):
        raise ValueError(
            f"switch_to_tokens: {type(model).__name__} has no EfficientViT attention with its "
            "BatchNorm folded; call switch_to_deploy() first."
        )
    for name, layer in layers.items():
        for inner, module in layer.named_modules():
            reason = why_not_plain(module)
            if reason is not None:
                place = ".".join(filter(None, (name, inner)))
                raise ValueError(
                    f"switch_to_tokens: {place!r} {reason}, which would have no effect; remove it."
                )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, TokenAttention(layer))
    return model.to(memory_format=torch.channels_last)
