"""This package's necks: ViTDet's simple pyramid and the pyramid of the EfficientViT detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from math import prod

from torch import Tensor, nn

from mmvitaccel.adapters.hosts.mmcv.conv_module import bypassed_in, spread_of, why_not
from mmvitaccel.adapters.hosts.mmcv.top_down import (
    laterals_of,
    merge,
    mixes_of,
    smooth,
    subsampled,
)
from mmvitaccel.adapters.parts import NeckAdapter
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.eventful.maps.steps import Mix, Spread, mix, spread

_Levels = Callable[[Sheets, Sequence[Sheet]], list[Sheet]]


def _last(neck: nn.Module, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [given if isinstance(given, Tensor) else given[-1]]


def _simple_levels(neck: nn.Module) -> _Levels:
    steps = [_simple_steps(getattr(neck, name)) for name in neck.paths]

    def run(sheets: Sheets, maps: Sequence[Sheet]) -> list[Sheet]:
        levels = []
        for name, (first, then) in zip(neck.paths, steps):
            made = spread(sheets, f"{name} spread", maps[0], first)
            levels += mix(sheets, {name: then}, made)
        return subsampled(sheets, levels, neck.num_outs)

    return run


def _simple_steps(path: nn.Sequential) -> tuple[Spread, Mix]:
    *layers, last = path
    pools = [layer.kernel_size for layer in layers if isinstance(layer, nn.MaxPool2d)]
    grows = [layer.stride[0] for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    first = Spread(partial(reduce, _apply, layers), cells=prod(pools), pixels=prod(grows))
    return first, Mix(last.weight, last.bias, last.norm)


def _apply(x: Tensor, layer: nn.Module) -> Tensor:
    return layer(x)


def _simple_bypassed(neck: nn.Module) -> Iterable[str]:
    for name in neck.paths:
        yield from (name, f"{name}.{len(getattr(neck, name)) - 1}")


_FPN_CONVS = dict(lateral_convs=1, fpn_convs=3, extra_fpn_convs=3)


def _maps(neck: nn.Module, given: Sequence[Tensor]) -> list[Tensor]:
    channels = tuple(x.shape[1] for x in given)
    if channels != neck.in_channels:
        raise ValueError(
            f"EfficientViTFPN: the inputs have {channels} channels; set in_channels to these "
            f"instead of {neck.in_channels}, or the backbone's out_indices."
        )
    return list(given)


def _efficientvit_levels(neck: nn.Module) -> _Levels:
    laterals = laterals_of(neck.lateral_convs)
    doubling = [spread_of(module) for module in neck.extra_trans_convs]
    outs, finer_outs = mixes_of(neck.fpn_convs), mixes_of(neck.extra_fpn_convs)

    def run(sheets: Sheets, maps: Sequence[Sheet]) -> list[Sheet]:
        merged = merge(sheets, laterals, maps, dict(mode="nearest"))
        finer = [merged[0]]
        for place, step in enumerate(doubling):
            finer.insert(0, spread(sheets, f"finer {place}", finer[0], step))
        levels = smooth(sheets, finer_outs, finer, "extra out")
        levels += smooth(sheets, outs, merged, "out")
        return subsampled(sheets, levels, neck.num_outs)

    return run


def _efficientvit_bypassed(neck: nn.Module) -> Iterable[str]:
    for name in (*_FPN_CONVS, "extra_trans_convs"):
        for place, module in enumerate(getattr(neck, name)):
            yield from bypassed_in(f"{name}.{place}", module)


def _refuse_efficientvit(neck: nn.Module) -> str | None:
    for name, kernel in _FPN_CONVS.items():
        for place, module in enumerate(getattr(neck, name)):
            reason = why_not(f"{name}.{place}", module, kernel)
            if reason is not None:
                return reason
    return None


NECKS = (
    NeckAdapter(
        name="mmvitaccel SimpleFPN",
        classes=("mmvitaccel.models.vitdet.simple_fpn.SimpleFPN",),
        inputs=_last,
        levels=_simple_levels,
        bypassed=_simple_bypassed,
    ),
    NeckAdapter(
        name="mmvitaccel EfficientViTFPN",
        classes=("mmvitaccel.models.efficientvit.fpn.EfficientViTFPN",),
        inputs=_maps,
        levels=_efficientvit_levels,
        bypassed=_efficientvit_bypassed,
        refuse=_refuse_efficientvit,
    ),
)
