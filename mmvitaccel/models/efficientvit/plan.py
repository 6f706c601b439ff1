"""Builds the compiled steps of an EfficientViT for one input size, and allocates their maps."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.core.kernels import maps
from mmvitaccel.core.kernels.maps import Step, Windows
from mmvitaccel.models.efficientvit.attention import KEY_DIMS, WindowAttention
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.layers import EfficientViTBlock, FeedForward, PatchMerging


@dataclass
class _Map:
    """A feature map (images, height, width, channels) in memory."""

    data: Tensor
    height: int
    width: int

    @property
    def channels(self) -> int:
        """Channels."""
        return self.data.shape[-1]


@dataclass
class Plan:
    """The steps for one input size."""

    steps: list[Step] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    outs: list[_Map] = field(default_factory=list)
    macs: int = 0
    array: ctypes.Array | None = None


class PlanBuilder:
    """Builds the steps of a model for one input size.

    Args:
        packed: Weights packed for the kernels, by the id of their convolution. It is filled here
            and shared by all input sizes.
    """

    def __init__(self, packed: dict[int, tuple[Tensor, ...]]) -> None:
        self.plan = Plan()
        self.packed = packed

    def build(self, model: EfficientViT, image: Tensor) -> Plan:
        """Build the steps of the whole model."""
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
        """Add the steps of one module of a stage."""
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
        """Allocate a map."""
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
        """Addresses of the packed weights of a convolution that runs as a matrix product."""
        if id(conv) not in self.packed:
            weight = conv.weight.detach()
            if conv is not self.first:  # (out, in, k, k) -> (out, k, k, in); the first reads planes
                weight = weight.permute(0, 2, 3, 1)
            weight = weight.flatten(1)
            self.packed[id(conv)] = maps.pack(weight, conv.bias.detach())
        weight, bias = self.packed[id(conv)]
        return dict(weight=weight.data_ptr(), bias=bias.data_ptr())

    def convolve(
        self, layer: ConvNorm | nn.Conv2d, x: _Map, act: int = maps.NONE, **fields: object
    ) -> _Map:
        """Add a convolution over all channels."""
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
        """Add a depthwise convolution; a residual adds 1 to its central weight."""
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
        """Add a feed-forward layer with its residual, in place."""
        hidden = self.convolve(layer.pw1, x, maps.RELU, joined=1)
        return self.convolve(layer.pw2, hidden, onto=x, residual=x.data.data_ptr())

    def merge(self, layer: PatchMerging, x: _Map) -> _Map:
        """Add the subsampling to half the resolution."""
        x = self.depthwise(layer.conv2, self.convolve(layer.conv1, x, maps.RELU), maps.RELU)
        means = self.new(1, 1, x.channels)
        self.step(x, means.data, kind=maps.MEANS)
        gate = self.convolve(layer.se.fc1, means, maps.RELU)
        gate = self.convolve(layer.se.fc2, gate, maps.SIGMOID)
        return self.convolve(layer.conv3, x, scale=gate.data.data_ptr())

    def attention(self, layer: WindowAttention, x: _Map) -> None:
        """Add a window attention with its residual, in place."""
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
        """Query weight and bias of a head, times the scale of the logits, and its bias table."""
        conv = attn.dws[index].c
        table = attn.attention_bias(tall, wide)[index].detach()
        table = F.pad(table, (0, -len(table) % maps.lanes()), value=-torch.inf).contiguous()
        self.plan.maps.append(table)
        if id(conv) not in self.packed:
            scale = KEY_DIMS**-0.5
            weight = (conv.weight.detach() * scale).flatten(1).t().contiguous()  # (k * k, 16)
            self.packed[id(conv)] = weight, conv.bias.detach() * scale
        return (*self.packed[id(conv)], table)
