"""Necks that make pyramid levels of one map: records of what is known of each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import prod

from torch import Tensor, nn

from mmvitaccel.adapters.base import class_name, host_class, named_base
from mmvitaccel.core.eventful.maps.levels import LevelSteps


@dataclass(frozen=True)
class NeckAdapter:
    """One family of necks.

    Attributes:
        name: What messages call the family.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``forward``.
        paths: The submodules that make the levels, each from the whole map (B, C, H, W), in the
            order in which the neck calls them. What the neck does behind them is its own.
        steps: A path, taken apart.
        bypassed: Submodules of a path, by name, that its steps do not call.
    """

    name: str
    classes: tuple[str, ...]
    paths: Callable[[nn.Module], Sequence[nn.Module]]
    steps: Callable[[nn.Module], LevelSteps]
    bypassed: Callable[[nn.Module], Sequence[str]]


def _simple_fpn_steps(path: nn.Sequential) -> LevelSteps:
    *spread, mix = path
    pools = [layer.kernel_size for layer in spread if isinstance(layer, nn.MaxPool2d)]
    grows = [layer.stride[0] for layer in spread if isinstance(layer, nn.ConvTranspose2d)]
    return LevelSteps(
        spread=partial(reduce, _apply, spread),
        weight=mix.weight,
        bias=mix.bias,
        finish=mix.norm,
        cells=prod(pools),
        pixels=prod(grows),
    )


def _apply(x: Tensor, layer: nn.Module) -> Tensor:
    return layer(x)


ADAPTERS = (
    NeckAdapter(
        name="mmvitaccel SimpleFPN",
        classes=("mmvitaccel.models.vitdet.simple_fpn.SimpleFPN",),
        paths=lambda neck: [getattr(neck, name) for name in neck.paths],
        steps=_simple_fpn_steps,
        bypassed=lambda path: [str(len(path) - 1)],
    ),
)


def find_neck(model: nn.Module) -> tuple[nn.Module, NeckAdapter]:
    """The one supported neck that ``model`` is or holds, and its record.

    Raises:
        ValueError: There is none or several, or it overrides the ``forward`` of its family.
    """
    found = [
        (module, adapter, base)
        for module in model.modules()
        for adapter in ADAPTERS
        if (base := named_base(module, adapter.classes)) is not None
    ]
    if len(found) != 1:
        known = ", ".join(name for adapter in ADAPTERS for name in adapter.classes)
        raise ValueError(
            f"EventfulNeck: {class_name(model)} holds {len(found) or 'no'} supported "
            f"neck{'s: give one' if found else ''}; supported are: {known}."
        )
    neck, adapter, base = found[0]
    if host_class(neck).forward is not base.forward:
        raise ValueError(
            f"EventfulNeck: {class_name(neck)} overrides the forward of {base.__name__}, so what "
            "a level depends on is not known."
        )
    return neck, adapter
