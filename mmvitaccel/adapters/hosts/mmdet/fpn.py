"""mmdet's FPN (Lin et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.adapters.hosts.mmcv.conv_module import bypassed_in, mix_of, why_not
from mmvitaccel.adapters.hosts.mmcv.top_down import (
    laterals_of,
    merge,
    mixes_of,
    smooth,
    subsampled,
)
from mmvitaccel.adapters.parts import NeckAdapter
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.eventful.maps.steps import Spread, mix, spread


def _inputs(neck: nn.Module, given: Sequence[Tensor]) -> list[Tensor]:
    if len(given) != len(neck.in_channels):
        raise ValueError(
            f"FPN: got {len(given)} maps for in_channels={list(neck.in_channels)}; give one map "
            "for each."
        )
    return list(given[neck.start_level : neck.backbone_end_level])


def _levels(neck: nn.Module) -> Callable[[Sheets, Sequence[Sheet]], list[Sheet]]:
    laterals, count = laterals_of(neck.lateral_convs), len(neck.lateral_convs)
    outs = mixes_of(neck.fpn_convs[:count])
    extra = [mix_of(module) for module in neck.fpn_convs[count:]]

    def run(sheets: Sheets, maps: Sequence[Sheet]) -> list[Sheet]:
        merged = merge(sheets, laterals, maps, neck.upsample_cfg)
        levels = smooth(sheets, outs, merged, "out")
        if not neck.add_extra_convs:
            return subsampled(sheets, levels, neck.num_outs)
        sources = dict(on_input=maps[-1], on_lateral=merged[-1], on_output=levels[-1])
        source = sources[neck.add_extra_convs]
        for place, step in enumerate(extra):
            if place and neck.relu_before_extra_convs:
                source = spread(sheets, f"relu {place}", source, Spread(F.relu))
            source = mix(sheets, {f"extra {place}": step}, source)[0]
            levels.append(source)
        return levels

    return run


def _bypassed(neck: nn.Module) -> Iterable[str]:
    for name in ("lateral_convs", "fpn_convs"):
        for place, module in enumerate(getattr(neck, name)):
            yield from bypassed_in(f"{name}.{place}", module)


def _refuse(neck: nn.Module) -> str | None:
    cfg: dict[str, Any] = neck.upsample_cfg
    if cfg.get("mode", "nearest") != "nearest" or set(cfg) - {"mode", "scale_factor"}:
        return f"upsample_cfg={dict(cfg)} mixes pixels; only mode='nearest' is supported"
    count = len(neck.lateral_convs)
    for place, module in enumerate(neck.lateral_convs):
        reason = why_not(f"lateral_convs.{place}", module, kernel=1)
        if reason is not None:
            return reason
    for place, module in enumerate(neck.fpn_convs):
        reason = why_not(f"fpn_convs.{place}", module, stride=1 if place < count else 2)
        if reason is not None:
            return reason
    return None


NECKS = (
    NeckAdapter(
        name="mmdet FPN",
        classes=("mmdet.models.necks.fpn.FPN",),
        inputs=_inputs,
        levels=_levels,
        bypassed=_bypassed,
        refuse=_refuse,
        border=lambda neck: int(neck.add_extra_convs == "on_input"),
    ),
)
