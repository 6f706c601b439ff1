"""Comparison of the strides of a detector's feature maps with the strides of its heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvitaccel.core.eventful.frame import frames_of, streams
from mmvitaccel.errors import UserError
from mmvitaccel.fit.heads import parts_with
from mmvitaccel.registry import type_name
from mmvitaccel.runner.random_input import input_channels, make_example

_LARGEST = 1024
_GENERATORS = ("prior_generator", "approx_anchor_generator", "square_anchor_generator")
_KEYS = ("anchor_generator", "approx_anchor_generator", "prior_generator", "bbox_head")
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Declared:
    """Strides that a part of the model expects.

    Attributes:
        where: Dotted key that sets them.
        strides: (y, x) of each map, in pixels.
        prefix: Whether the part only uses the first maps, as RoI extractors do.
    """

    where: str
    strides: tuple[tuple[float, float], ...]
    prefix: bool = False


def check_strides(cfg: Config, model: nn.Module) -> None:
    """Compare the strides of the feature maps with those of priors and RoI extractors.

    The model runs in eval mode on an image of zeros, twice as large as the largest stride. If the
    strides do not match, it runs on larger images, the last one of the test pipeline's size,
    because SSD's maps only fit at one size. If the model fails on all of them, nothing is reported.

    Args:
        cfg: Config of the model.
        model: A detector; other models have no strides and are not run.

    Raises:
        UserError: If the strides differ.
    """
    for name, detector in parts_with(model, "extract_feat"):
        declared = list(_declared(detector, cfg, name))
        if declared:
            _check_detector(cfg, detector, name, declared)


def _check_detector(
    cfg: Config, detector: nn.Module, name: str, declared: Sequence[Declared]
) -> None:
    channels = input_channels(cfg)
    side = ceil(2 * max(stride for part in declared for pair in part.strides for stride in pair))
    found: list[tuple[float, float]] | None = None
    while True:
        sizes = _map_sizes(detector, channels, (side, side))
        if sizes is not None:
            if not _misfits(declared, sizes, (side, side)):
                return
            found = [(side / h, side / w) for h, w in sizes]
        # A map of one pixel does not determine a stride; larger images give those of the message.
        if side * 2 > _LARGEST or (sizes is not None and min(map(min, sizes)) > 1):
            break
        side *= 2
    height_width = _test_size(cfg)
    if height_width is not None:
        sizes = _map_sizes(detector, channels, height_width)
        if sizes is not None:
            if not _misfits(declared, sizes, height_width):
                return
            found = found or [(height_width[0] / h, height_width[1] / w) for h, w in sizes]
    if found is not None:
        raise UserError(_sentence(cfg, name, declared, found))


def _declared(detector: nn.Module, cfg: Config, name: str) -> Iterator[Declared]:
    """Yield the strides that the detector's heads expect."""
    prefix = f"model.{name}." if name else "model."
    seen: set[int] = set()
    for head in ("rpn_head", "bbox_head"):
        for part in _modules(getattr(detector, head, None)):
            for generator in (getattr(part, key, None) for key in _GENERATORS):
                strides = getattr(generator, "strides", None)
                if strides is None or id(generator) in seen:
                    continue
                seen.add(id(generator))
                yield Declared(_stride_key(cfg, f"{prefix}{head}"), _pairs(strides))
    mask_head = getattr(detector, "mask_head", None)
    if any("SOLO" in kind.__name__ for kind in type(mask_head).__mro__):
        # SOLO halves the first map and resizes the last one to the size of the one before.
        first, *others = mask_head.strides[:-1]
        where = f"{prefix}mask_head.strides, before the first map is halved and without the last,"
        yield Declared(where, _pairs([first / 2, *others]), prefix=True)
    roi_head = getattr(detector, "roi_head", None)
    for key, extractor in _extractors(roi_head):
        strides = _pairs(extractor.featmap_strides)
        yield Declared(f"{prefix}roi_head.{key}.featmap_strides", strides, prefix=True)


def _modules(head: Any) -> Iterator[nn.Module]:
    if isinstance(head, nn.Module):
        yield from head.modules()


def _extractors(roi_head: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the RoI extractors, without those of a semantic branch, which has its own maps."""
    for key in dir(roi_head) if isinstance(roi_head, nn.Module) else ():
        if not key.endswith("roi_extractor") or key.startswith("semantic"):
            continue
        value = getattr(roi_head, key, None)
        for extractor in value if isinstance(value, nn.ModuleList) else (value,):
            if getattr(extractor, "featmap_strides", None):
                yield key, extractor
                break


def _stride_key(cfg: Config, head: str) -> str:
    """Return the dotted key of the strides in a head's config."""
    node: Any = cfg.model
    for part in head.split(".")[1:]:
        node = node.get(part) if isinstance(node, Mapping) else None
    if node is None and head == "model.bbox_head":
        # mmdet's RPN is a one-stage detector whose `bbox_head` is configured as `rpn_head`.
        node, head = cfg.model.get("rpn_head"), "model.rpn_head"
    if not isinstance(node, Mapping):
        return f"{head}.strides"
    for key in _KEYS:
        if isinstance(node.get(key), Mapping) and "strides" in node[key]:
            return f"{head}.{key}.strides"
    return f"{head}.point_strides" if "point_strides" in node else f"{head}.strides"


def _pairs(strides: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """Return each stride as (y, x); generators have (x, y) or one number."""
    return tuple((s[1], s[0]) if isinstance(s, (tuple, list)) else (s, s) for s in strides)


def _map_sizes(
    detector: nn.Module, channels: int, size: tuple[int, int]
) -> list[tuple[int, int]] | None:
    """Return (height, width) of each map for an image of a size; None if the model fails on it."""
    images = torch.zeros(1, channels, *size)
    training = detector.training
    detector.eval()
    try:
        # A frame without a stream, so that an eventful model keeps no state of it.
        with torch.no_grad(), streams(frames_of(None)):
            maps = detector.extract_feat(images)
    except Exception:
        # If it is a mistake in the config, the run reports it for the user's own input.
        return None
    finally:
        detector.train(training)
    if isinstance(maps, Tensor):
        maps = (maps,)
    if not isinstance(maps, (list, tuple)) or not all(
        isinstance(x, Tensor) and x.ndim == 4 for x in maps
    ):
        return None
    return [(x.shape[-2], x.shape[-1]) for x in maps]


def _misfits(
    declared: Sequence[Declared], sizes: Sequence[tuple[int, int]], image: tuple[int, int]
) -> list[Declared]:
    return [part for part in declared if not _fits(part, sizes, image)]


def _fits(part: Declared, sizes: Sequence[tuple[int, int]], image: tuple[int, int]) -> bool:
    """Check whether every map has the image's size divided by the stride, rounded up or down."""
    if len(part.strides) > len(sizes) or (len(part.strides) < len(sizes) and not part.prefix):
        return False
    return all(
        floor(pixels / stride + _ROUNDING) <= cells <= ceil(pixels / stride - _ROUNDING)
        for size, strides in zip(sizes, part.strides)
        for cells, stride, pixels in zip(size, strides, image)
    )


def _test_size(cfg: Config) -> tuple[int, int] | None:
    try:
        shape = make_example(cfg, None).inputs.shape
    except UserError:
        return None
    return int(shape[-2]), int(shape[-1])


def _sentence(
    cfg: Config,
    name: str,
    declared: Sequence[Declared],
    found: Sequence[tuple[float, float]],
) -> str:
    wrong = [part for part in declared if not _same(part, found)] or list(declared)
    places = " and ".join(f"{part.where} is {_words(part.strides)}" for part in wrong)
    maps = f"model.{name + '.' if name else ''}backbone and neck"
    cure = "set these to the maps' strides, or change the backbone or neck"
    if "EfficientViT" in _backbone(cfg, name):
        cure += (
            " (mmvitaccel.EfficientViTFPN with num_extra_trans_convs=1 as the neck makes maps of "
            "strides 8 to 128 from EfficientViT's 16 to 64)"
        )
    return f"{maps}: the maps have the strides {_words(found)}, but {places}; {cure}."


def _same(part: Declared, found: Sequence[tuple[float, float]]) -> bool:
    shown = found[: len(part.strides)] if part.prefix else found
    return [tuple(map(round, pair)) for pair in shown] == [
        tuple(map(round, pair)) for pair in part.strides
    ]


def _backbone(cfg: Config, name: str) -> str:
    node: Any = cfg.model.get(name) if name else cfg.model
    backbone = node.get("backbone") if isinstance(node, Mapping) else None
    while isinstance(backbone, Mapping) and isinstance(backbone.get("backbone"), Mapping):
        backbone = backbone["backbone"]
    return type_name(backbone) if isinstance(backbone, Mapping) else ""


def _words(strides: Sequence[tuple[float, float]]) -> str:
    """Return strides as text, with one number for a map if both directions agree."""
    shown = [f"{y:g}" if y == x else f"({y:g}, {x:g})" for y, x in strides]
    return f"[{', '.join(shown)}]"
