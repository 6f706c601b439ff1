"""Top-down paths of feature pyramids with ConvModules: each level adds the next coarser one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.adapters.hosts.mmcv.conv_module import mix_of, spread_of
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.eventful.maps.steps import Above, Mix, Spread, mix, spread, subsample


def laterals_of(modules: Iterable[nn.Module]) -> list[Spread]:
    """Return the steps of 1 x 1 convolutions, fine to coarse."""
    return [spread_of(module) for module in modules]


def merge(
    sheets: Sheets, steps: Sequence[Spread], maps: Sequence[Sheet], enlarge_cfg: dict[str, Any]
) -> list[Sheet]:
    """Compute the lateral maps and add to each the enlarged next coarser one.

    Args:
        sheets: Stored maps.
        steps: Lateral convolution of each map.
        maps: Inputs, fine to coarse, one for each step.
        enlarge_cfg: Arguments of ``F.interpolate``; without ``scale_factor``, the size of the finer
            map is added.

    Returns:
        The merged maps, fine to coarse.
    """
    merged: list[Sheet] = []
    for place in reversed(range(len(steps))):
        above = None
        if merged:
            size = {} if "scale_factor" in enlarge_cfg else dict(size=maps[place].size)
            above = Above(merged[0], _enlarging({**enlarge_cfg, **size}))
        merged.insert(0, spread(sheets, f"lateral {place}", maps[place], steps[place], above))
    return merged


def _enlarging(cfg: dict[str, Any]):
    def enlarge(x: Tensor) -> Tensor:
        return F.interpolate(x, **cfg)

    return enlarge


def smooth(sheets: Sheets, steps: Sequence[Mix], maps: Sequence[Sheet], key: str) -> list[Sheet]:
    """Apply a 3 x 3 convolution to each map."""
    return [
        mix(sheets, {f"{key} {place}": step}, source)[0]
        for place, (step, source) in enumerate(zip(steps, maps))
    ]


def mixes_of(modules: Iterable[nn.Module]) -> list[Mix]:
    """Return the steps of 3 x 3 convolutions."""
    return [mix_of(module) for module in modules]


def subsampled(sheets: Sheets, levels: list[Sheet], num_outs: int) -> list[Sheet]:
    """Add levels, each subsampled from the previous one, up to ``num_outs``; changes the list."""
    while len(levels) < num_outs:
        levels.append(subsample(sheets, f"subsampled {len(levels)}", levels[-1]))
    return levels
