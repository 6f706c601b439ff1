"""mmdet's dense heads.

RPN, RetinaNet (arXiv 1708.02002), FCOS (arXiv 1904.01355) and ATSS (arXiv 1912.02424).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.adapters.hosts.mmcv.conv_module import bypassed_in, mix_of, why_not
from mmvitaccel.adapters.parts import HeadAdapter
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.eventful.maps.steps import Mix, mix

_Outputs = Callable[[Sheets, Sequence[Sheet]], tuple[list[Tensor], ...]]


def _rpn_convs(head: nn.Module) -> dict[str, nn.Module]:
    if isinstance(head.rpn_conv, nn.Sequential):
        return {f"rpn_conv.{place}": module for place, module in enumerate(head.rpn_conv)}
    return {"rpn_conv": head.rpn_conv}


def _rpn_outputs(head: nn.Module) -> _Outputs:
    *tower, last = [mix_of(module, is_between=True) for module in _rpn_convs(head).values()]
    scores = head.rpn_cls.out_channels

    def finish(x: Tensor) -> Tensor:
        x = F.relu(last.finish(x))
        return torch.cat([head.rpn_cls(x), head.rpn_reg(x)], 1)

    # The output of the last 3 x 3 convolution is read only by 1 x 1 ones, which need no
    # neighbouring pixels, so it is not stored
    out = Mix(last.weight, last.bias, finish, border=0)

    def run(sheets: Sheets, levels: Sequence[Sheet]) -> tuple[list[Tensor], ...]:
        found = []
        for place, level in enumerate(levels):
            for depth, step in enumerate(tower):
                level = mix(sheets, {f"{place} {depth}": step}, level)[0]
            found.append(mix(sheets, {f"{place} out": out}, level)[0].map)
        return [x[:, :scores] for x in found], [x[:, scores:] for x in found]

    return run


def _rpn_bypassed(head: nn.Module) -> Iterable[str]:
    if isinstance(head.rpn_conv, nn.Sequential):
        yield "rpn_conv"
    for path, module in _rpn_convs(head).items():
        yield from bypassed_in(path, module)


def _towers(head: nn.Module) -> dict[str, list[Mix]]:
    names = ("cls_convs", "reg_convs")
    return {name: [mix_of(m, is_between=True) for m in getattr(head, name)] for name in names}


def _climb(
    sheets: Sheets, towers: dict[str, list[Mix]], place: int, level: Sheet
) -> dict[str, Sheet]:
    """Run both towers on a level; their first convolutions share the gathered neighbourhoods."""
    tops = dict.fromkeys(towers, level)
    first = {f"{place} {name} 0": tower[0] for name, tower in towers.items() if tower}
    if first:
        names = [name for name, tower in towers.items() if tower]
        tops.update(zip(names, mix(sheets, first, level)))
    for name, tower in towers.items():
        for depth, step in enumerate(tower[1:], 1):
            tops[name] = mix(sheets, {f"{place} {name} {depth}": step}, tops[name])[0]
    return tops


def _retina_outputs(head: nn.Module) -> _Outputs:
    towers = _towers(head)
    cls, reg = mix_of(head.retina_cls, border=0), mix_of(head.retina_reg, border=0)

    def run(sheets: Sheets, levels: Sequence[Sheet]) -> tuple[list[Tensor], ...]:
        scores, boxes = [], []
        for place, level in enumerate(levels):
            tops = _climb(sheets, towers, place, level)
            scores.append(mix(sheets, {f"{place} cls": cls}, tops["cls_convs"])[0].map)
            boxes.append(mix(sheets, {f"{place} reg": reg}, tops["reg_convs"])[0].map)
        return scores, boxes

    return run


def _fcos_outputs(head: nn.Module) -> _Outputs:
    towers = _towers(head)
    cls, centre = mix_of(head.conv_cls, border=0), mix_of(head.conv_centerness, border=0)
    side = "reg_convs" if head.centerness_on_reg else "cls_convs"

    def distances(place: int) -> Mix:
        scale, stride = head.scales[place], head.strides[place]

        def finish(x: Tensor) -> Tensor:
            x = scale(x).float()
            return x.clamp(min=0) * stride if head.norm_on_bbox else x.exp()

        return Mix(head.conv_reg.weight, head.conv_reg.bias, finish, border=0)

    reg = [distances(place) for place in range(len(head.scales))]
    return _three(towers, cls, reg, centre, side)


def _atss_outputs(head: nn.Module) -> _Outputs:
    cls, centre = mix_of(head.atss_cls, border=0), mix_of(head.atss_centerness, border=0)

    def distances(scale: nn.Module) -> Mix:
        convolution = head.atss_reg
        return Mix(convolution.weight, convolution.bias, lambda x: scale(x).float(), border=0)

    reg = [distances(scale) for scale in head.scales]
    return _three(_towers(head), cls, reg, centre, "reg_convs")


def _three(
    towers: dict[str, list[Mix]], cls: Mix, reg: Sequence[Mix], centre: Mix, side: str
) -> _Outputs:
    """Make a function that computes scores, boxes and centernesses of all levels.

    Args:
        towers: Convolutions before the output ones.
        cls: Convolution of the scores.
        reg: Convolution of the boxes for each level.
        centre: Convolution of the centerness.
        side: Name of the tower that ``centre`` reads.
    """

    def run(sheets: Sheets, levels: Sequence[Sheet]) -> tuple[list[Tensor], ...]:
        outs: tuple[list[Tensor], ...] = ([], [], [])
        for place, level in enumerate(levels):
            tops = _climb(sheets, towers, place, level)
            steps = {"cls_convs": {f"{place} cls": cls}, "reg_convs": {f"{place} reg": reg[place]}}
            steps[side][f"{place} centre"] = centre
            made = {}
            for name, convs in steps.items():
                made.update(zip(convs, mix(sheets, convs, tops[name])))
            for out, key in zip(outs, ("cls", "reg", "centre")):
                out.append(made[f"{place} {key}"].map)
        return outs

    return run


def _named(*last: str) -> Callable[[nn.Module], dict[str, nn.Module]]:
    """Return a function that lists the convolutions of both towers and the output ones."""

    def convs(head: nn.Module) -> dict[str, nn.Module]:
        towers = {
            f"{name}.{place}": module
            for name in ("cls_convs", "reg_convs")
            for place, module in enumerate(getattr(head, name))
        }
        return {**towers, **{name: getattr(head, name) for name in last}}

    return convs


def _bypassing(convs: Callable[[nn.Module], dict[str, nn.Module]]):
    def bypassed(head: nn.Module) -> Iterable[str]:
        for path, module in convs(head).items():
            yield from bypassed_in(path, module)

    return bypassed


def _refusing(convs: Callable[[nn.Module], dict[str, nn.Module]], held: bool):
    def refuse(head: nn.Module) -> str | None:
        for path, module in convs(head).items():
            reason = why_not(path, module, held=held)
            if reason is not None:
                if why_not(path, module, held=True) is None:
                    reason += " (group_norm='held' keeps them between frames)"
                return reason
        return None

    return refuse


_RETINA = _named("retina_cls", "retina_reg")
_FCOS = _named("conv_cls", "conv_reg", "conv_centerness")
_ATSS = _named("atss_cls", "atss_reg", "atss_centerness")


def _records(held: bool) -> tuple[HeadAdapter, ...]:
    """Make the adapters.

    Args:
        held: Support GroupNorm, by its statistics in the last frame computed completely.
    """
    return tuple(
        HeadAdapter(
            name=f"mmdet {name}",
            classes=(f"mmdet.models.dense_heads.{module}.{name}",),
            outputs=outputs,
            bypassed=bypassed,
            refuse=_refusing(convs, held),
        )
        for module, name, outputs, bypassed, convs in (
            ("rpn_head", "RPNHead", _rpn_outputs, _rpn_bypassed, _rpn_convs),
            ("retina_head", "RetinaHead", _retina_outputs, _bypassing(_RETINA), _RETINA),
            ("fcos_head", "FCOSHead", _fcos_outputs, _bypassing(_FCOS), _FCOS),
            ("atss_head", "ATSSHead", _atss_outputs, _bypassing(_ATSS), _ATSS),
        )
    )


HEADS, HEADS_HELD = _records(held=False), _records(held=True)
