"""EfficientViT for inference on a CPU as compiled steps, from images to features in one call.

At small batch sizes, this network spends most of its time not on multiply-adds but on hundreds of
small operators and their copies. Here, a convolution with its activation and its residual is one
step, heads read their channels and windows without copies, and the weights are packed once.
"""

from __future__ import annotations

import copy
import ctypes
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.core.kernels import maps
from mmvitaccel.core.kernels.export import refuse_export
from mmvitaccel.core.kernels.library.choice import chosen
from mmvitaccel.core.kernels.maps import Step, Windows
from mmvitaccel.core.kernels.operators import kernels
from mmvitaccel.core.locks import Lock
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.layers import (
    KEY_DIMS,
    CascadedGroupAttention,
    ConvNorm,
    EfficientViTBlock,
    FeedForward,
    PatchMerging,
    WindowAttention,
)
from mmvitaccel.models.efficientvit.plain import why_not_plain

_PLANS_KEPT = 4  # number of input sizes whose steps and maps are cached

_NOT_EXPORTED = (
    "CompiledEfficientViT cannot be exported: its steps are compiled for this CPU and are not "
    "part of a graph; export the original EfficientViT."
)


@dataclass
class _Map:
    """A map (images, height, width, channels) in memory."""

    data: Tensor
    height: int
    width: int

    @property
    def channels(self) -> int:
        return self.data.shape[-1]


@dataclass
class _Plan:
    """The steps for one size of input."""

    steps: list[Step] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    outs: list[_Map] = field(default_factory=list)
    macs: int = 0
    array: ctypes.Array | None = None


class CompiledEfficientViT(nn.Module):
    """An :class:`EfficientViT` for inference on a CPU in single precision, without gradients.

    The weights are copied with folded BatchNorm; later changes of the model have no effect.

    Args:
        model: The model, which is not changed.

    Raises:
        TypeError: The model is not an :class:`EfficientViT`.
        ValueError: The model is not in single precision on a CPU, its channels are not a multiple
            of the vector size, or it has a hook, a replaced ``forward`` or a wrapper, which would
            have no effect.
        RuntimeError: There are no compiled kernels.

    Examples:
        >>> detector.backbone = CompiledEfficientViT(detector.backbone)
    """

    def __init__(self, model: EfficientViT) -> None:
        super().__init__()
        if not isinstance(model, EfficientViT):
            raise TypeError(
                f"CompiledEfficientViT: the model is a {type(model).__name__}; give an "
                f"EfficientViT, such as a detector's backbone."
            )
        _check_hooks(model)
        model = copy.deepcopy(model).eval()
        model.switch_to_deploy()
        _check(model)
        self._model = [model]  # in a list, so that its parameters are not registered here
        self._packed: dict[int, tuple[Tensor, ...]] = {}
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._lock = Lock()  # threads share the maps

    def __prepare_scriptable__(self) -> Any:
        """Called by ``torch.jit.script``, which is not supported either."""
        raise RuntimeError(_NOT_EXPORTED)

    def __reduce__(self) -> tuple[type, tuple[EfficientViT]]:
        """Copy and pickle through the model, because addresses are only valid in one place."""
        return CompiledEfficientViT, (self._model[0],)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of :meth:`EfficientViT.forward` for images (B, C, H, W).

        Raises:
            ValueError: The input is not a batch of images in single precision on a CPU.
            RuntimeError: The module is being traced or exported.
        """
        refuse_export(_NOT_EXPORTED)
        channels = self._model[0].in_channels
        images = x.dim() == 4 and x.shape[1] == channels and x.numel() > 0
        if not images or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"CompiledEfficientViT: the input is {tuple(x.shape)}, {x.dtype} on {x.device}; it "
                f"must be images (B, {channels}, H, W) in float32 on a CPU."
            )
        x = x.contiguous()
        with self._lock:
            plan = self._plan(x)
            plan.array[0].in_ = x.data_ptr()
            maps.run_steps(
                [x, *plan.maps], ctypes.addressof(plan.array), len(plan.array), plan.macs
            )
            # reason: a copy, because the next call writes to the same maps
            return tuple(
                out.data.view(len(x), out.height, out.width, -1).permute(0, 3, 1, 2).clone()
                for out in plan.outs
            )

    def _plan(self, x: Tensor) -> _Plan:
        """The steps for images of this size."""
        plan = self._plans.get(tuple(x.shape))
        if plan is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[tuple(x.shape)] = _Builder(self._packed).build(self._model[0], x)
        return plan


def _check_hooks(model: EfficientViT) -> None:
    for name, module in model.named_modules():
        reason = why_not_plain(module)
        if reason is not None:
            raise ValueError(
                f"CompiledEfficientViT: '{name}' {reason}, which would have no effect in "
                f"compiled steps; remove it, or use it on the outputs."
            )


def _check(model: EfficientViT) -> None:
    layers = [m for m in model.modules() if isinstance(m, ConvNorm)]
    weights = [layer.c.weight for layer in layers]
    if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        raise ValueError(
            f"CompiledEfficientViT: the model is in {weights[0].dtype} on {weights[0].device}; "
            "it must be in float32 on a CPU."
        )
    if kernels() is None:
        raise RuntimeError(f"CompiledEfficientViT needs compiled kernels: {chosen().why}.")
    for name, module in model.named_modules():
        channels = 0  # that are taken a vector at a time
        if isinstance(module, CascadedGroupAttention):
            channels = module.head_dims
        elif isinstance(module, ConvNorm) and module.c.groups > 1:
            channels = module.c.in_channels
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            depth = module.weight[0].numel()
            if depth > maps.deepest():
                raise ValueError(
                    f"CompiledEfficientViT: '{name}' sums {depth} numbers for an output; "
                    f"{maps.deepest()} is the most."
                )
        if channels % maps.lanes():
            raise ValueError(
                f"CompiledEfficientViT: '{name}' has {channels} channels; this machine needs "
                f"multiples of {maps.lanes()}."
            )


class _Builder:
    """Builds the steps of a model for one input size.

    Args:
        packed: Weights in the form of the kernels, by what they were made from; filled here, so
            that all sizes share them.
    """

    def __init__(self, packed: dict[int, tuple[Tensor, ...]]) -> None:
        self.plan = _Plan()
        self.packed = packed

    def build(self, model: EfficientViT, image: Tensor) -> _Plan:
        """The steps of the whole model."""
        images, _, height, width = image.shape
        x = _Map(image, height, width)
        self.images, self.first = images, model.patch_embed[0].c
        for layer in model.patch_embed:
            if isinstance(layer, ConvNorm):
                x = self.convolve(layer, x, act=maps.RELU)
        self.plan.steps[-1].act = maps.NONE
        self.plan.steps[0].kind = maps.PLANES
        for index, stage in enumerate(model.stages):
            for module in stage:
                x = self.module(module, x)
            if index in model.out_indices:
                self.plan.outs.append(x)
        self.plan.array = (Step * len(self.plan.steps))(*self.plan.steps)
        return self.plan

    def module(self, module: nn.Module, x: _Map) -> _Map:
        """One module of a stage."""
        if isinstance(module, EfficientViTBlock):
            x = self.feed_forward(module.ffn0.m, self.depthwise(module.dw0.m, x, residual=True))
            self.attention(module.mixer.m, x)
            x = self.depthwise(module.dw1.m, x, residual=True)
            return self.feed_forward(module.ffn1.m, x)
        if isinstance(module, PatchMerging):
            return self.merge(module, x)
        mix, ffn = module
        return self.feed_forward(ffn.m, self.depthwise(mix.m, x, residual=True))

    def new(self, height: int, width: int, channels: int) -> _Map:
        """A separate map."""
        data = torch.empty(self.images * height * width, channels)
        self.plan.maps.append(data)
        return _Map(data, height, width)

    def step(self, x: _Map, out: Tensor, **fields: object) -> Step:
        """Add a step that reads a map."""
        given = dict(
            images=self.images, height=x.height, width=x.width, in_channels=x.channels,
            in_=x.data.data_ptr(), in_step=x.channels,
            out=out.data_ptr(), out_channels=out.shape[-1], out_step=out.shape[-1],
            kernel=1, stride=1,
        )  # fmt: skip
        self.plan.steps.append(Step(**(given | fields)))
        return self.plan.steps[-1]

    def weights(self, conv: nn.Conv2d) -> dict[str, int]:
        """Packed weights of a convolution that is a product."""
        if id(conv) not in self.packed:
            weight = conv.weight.detach()
            if conv is not self.first:  # (out, in, k, k) -> (out, k, k, in), but for planes
                weight = weight.permute(0, 2, 3, 1)
            weight = weight.flatten(1)
            self.packed[id(conv)] = maps.pack(weight, conv.bias.detach())
        weight, bias = self.packed[id(conv)]
        return dict(weight=weight.data_ptr(), bias=bias.data_ptr())

    def convolve(
        self, layer: ConvNorm | nn.Conv2d, x: _Map, act: int = maps.NONE, **fields: object
    ) -> _Map:
        """A convolution over all channels."""
        conv = layer.c if isinstance(layer, ConvNorm) else layer
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        height, width = -(-x.height // stride), -(-x.width // stride)
        out = fields.pop("onto", None) or self.new(height, width, conv.out_channels)
        fields |= self.weights(conv)
        self.step(
            x, out.data, kind=maps.PRODUCT, in_channels=conv.in_channels,
            kernel=kernel, stride=stride, act=act, **fields,
        )  # fmt: skip
        self.plan.macs += self.images * height * width * conv.weight.numel()
        return out

    def depthwise(
        self, layer: ConvNorm, x: _Map, act: int = maps.NONE, residual: bool = False
    ) -> _Map:
        """A depthwise convolution; the residual is one more weight at its centre."""
        conv, stride = layer.c, layer.c.stride[0]
        if id(conv) not in self.packed:
            weight = conv.weight.detach().flatten(1).t().contiguous()  # (9, C)
            if residual:
                weight[4] += 1
            self.packed[id(conv)] = weight, conv.bias.detach().clone()
        weight, bias = self.packed[id(conv)]
        out = self.new(-(-x.height // stride), -(-x.width // stride), x.channels)
        self.step(
            x, out.data, kind=maps.DEPTHWISE, kernel=3, stride=stride, act=act,
            weight=weight.data_ptr(), bias=bias.data_ptr(),
        )  # fmt: skip
        self.plan.macs += self.images * out.height * out.width * conv.weight.numel()
        return out

    def feed_forward(self, layer: FeedForward, x: _Map) -> _Map:
        """In place."""
        hidden = self.convolve(layer.pw1, x, maps.RELU, joined=1)
        return self.convolve(layer.pw2, hidden, onto=x, residual=x.data.data_ptr())

    def merge(self, layer: PatchMerging, x: _Map) -> _Map:
        """To half the resolution."""
        x = self.depthwise(layer.conv2, self.convolve(layer.conv1, x, maps.RELU), maps.RELU)
        means = self.new(1, 1, x.channels)
        self.step(x, means.data, kind=maps.MEANS)
        gate = self.convolve(layer.se.fc1, means, maps.RELU)
        gate = self.convolve(layer.se.fc2, gate, maps.SIGMOID)
        return self.convolve(layer.conv3, x, scale=gate.data.data_ptr())

    def attention(self, layer: WindowAttention, x: _Map) -> None:
        """In place."""
        attn, side, dims = layer.attn, layer.window_size, layer.attn.head_dims
        tall, wide = x.height, x.width
        if x.height > side or x.width > side:
            tall = wide = side
        windows = Windows(tall, wide, -(-x.height // tall), -(-x.width // wide))
        pixels = windows.down * windows.across * windows.tokens
        rectified = self.new(x.height, x.width, x.channels)
        head = None
        for index, (qkv, dw) in enumerate(zip(attn.qkvs, attn.dws)):
            made = self.new(pixels, 1, qkv.c.out_channels)
            self.convolve(
                qkv, x, onto=made, windows=windows, in_=x.data[:, index * dims :].data_ptr(),
                previous=None if head is None else head.data.data_ptr(),
            )  # fmt: skip
            self.plan.macs += self.images * (pixels - x.height * x.width) * qkv.c.weight.numel()
            head = self.new(pixels, 1, dims)
            weight, bias, table = self.head_weights(attn, index, tall, wide)
            self.step(
                x, head.data, kind=maps.ATTENTION, in_=made.data.data_ptr(),
                in_step=made.channels, windows=windows, kernel=dw.c.kernel_size[0],
                weight=weight.data_ptr(), bias=bias.data_ptr(), key_channels=KEY_DIMS,
                rectified=rectified.data[:, index * dims :].data_ptr(),
                rectified_step=x.channels, attention_bias=table.data_ptr(),
            )  # fmt: skip
            self.plan.macs += (
                self.images * pixels * (dw.c.weight.numel() + windows.tokens * (KEY_DIMS + dims))
            )
        self.convolve(attn.proj[1], rectified, onto=x, residual=x.data.data_ptr())

    def head_weights(
        self, attn: nn.Module, index: int, tall: int, wide: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a head's queries, with the scale of the logits in them, and its biases."""
        conv = attn.dws[index].c
        table = attn.attention_bias(tall, wide)[index].detach()
        table = F.pad(table, (0, -len(table) % maps.lanes()), value=-torch.inf).contiguous()
        self.plan.maps.append(table)
        if id(conv) not in self.packed:
            scale = KEY_DIMS**-0.5
            weight = (conv.weight.detach() * scale).flatten(1).t().contiguous()  # (k * k, 16)
            self.packed[id(conv)] = weight, conv.bias.detach() * scale
        return (*self.packed[id(conv)], table)
