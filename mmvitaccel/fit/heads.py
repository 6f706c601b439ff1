"""The classification heads of a built model, and their class weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

_NESTED = ("detector", "student")
_HEADS = (
    *("bbox_head", "mask_head", "panoptic_head", "roi_head.bbox_head", "roi_head.mask_head"),
    *("roi_head.mask_iou_head", "roi_head.point_head", "roi_head.glbctx_head", "query_head"),
    *("cls_head", "head"),
)
_OF_THINGS = ("panoptic_head", "semantic_head", "panoptic_fusion_head")
_LOSSES = ("loss_cls", "loss_module")


@dataclass(frozen=True)
class Head:
    """A classification head.

    Attributes:
        where: Dotted key of the number of classes in the config.
        num_classes: Number of classes.
    """

    where: str
    num_classes: int


def parts_with(model: nn.Module, method: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model, or the detector inside a tracker or a semi-supervised model.

    Args:
        model: Any model.
        method: Name of a method; modules without it are skipped.

    Yields:
        The name within the model (empty for the model itself) and the module.
    """
    nested = [name for name in _NESTED if isinstance(getattr(model, name, None), nn.Module)]
    for name in nested or [""]:
        part = getattr(model, name) if name else model
        if callable(getattr(part, method, None)):
            yield name, part


def backbone_of(model: nn.Module) -> nn.Module | None:
    """Return the backbone of a model, or of the detector inside it; None if there is none."""
    for _, part in parts_with(model, "forward"):
        backbone = getattr(part, "backbone", None)
        if isinstance(backbone, nn.Module):
            return backbone
    return None


def heads_of(model: nn.Module) -> Iterator[Head]:
    """Yield the heads that classify the classes of the data set.

    Class-agnostic heads (RPN), panoptic heads and open-vocabulary models are not included.
    """
    for where, head in _named_heads(model):
        if not hasattr(head, "num_things_classes"):
            yield Head(f"{where}.num_classes", head.num_classes)


def things_and_stuff(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Yield the dotted key of each panoptic head, and its numbers of thing and stuff classes."""
    for name, part in parts_with(model, "forward"):
        for key in _OF_THINGS:
            head = getattr(part, key, None)
            if _is_count(getattr(head, "num_things_classes", None)):
                where = ".".join(filter(None, ("model", name, key)))
                yield where, head.num_things_classes, head.num_stuff_classes


def class_weights(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Yield the dotted key of each loss with class weights, their number and the needed number.

    mmdet's heads with softmax also need a weight for the background.
    """
    for where, head in _named_heads(model):
        for key in _LOSSES:
            loss = getattr(head, key, None)
            given = getattr(loss, "class_weight", None)
            if hasattr(given, "__len__"):
                background = hasattr(loss, "use_sigmoid") and key == "loss_cls"
                needed = getattr(head, "cls_out_channels", head.num_classes + background)
                yield f"{where}.{key}.class_weight", len(given), needed


def blended_classes(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Dotted key and number of classes of each way in which mmaction2 mixes clips and labels."""
    blending = getattr(getattr(model, "data_preprocessor", None), "blending", None)
    several = getattr(blending, "augments", None)
    for index, way in enumerate(several if several else [blending]):
        if _is_count(getattr(way, "num_classes", None)):
            inner = f".augments.{index}" if several else ""
            yield f"model.data_preprocessor.blending{inner}.num_classes", way.num_classes


def _named_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the dotted key and module of each head that has a number of classes."""
    for name, part in parts_with(model, "forward"):
        if hasattr(part, "language_model"):
            continue
        for key in _HEADS:
            for index, head in _each(part, key):
                if _is_count(getattr(head, "num_classes", None)) and not _is_agnostic(head):
                    yield ".".join(filter(None, ("model", name, key, index))), head


def _each(part: Any, key: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield a head by its dotted name, or the heads of a cascade's stages, with their index."""
    for name in key.split("."):
        part = getattr(part, name, None)
    if isinstance(part, nn.ModuleList):
        yield from ((str(index), head) for index, head in enumerate(part))
    elif isinstance(part, nn.Module):
        yield "", part


def _is_agnostic(head: nn.Module) -> bool:
    """Check whether a head is class-agnostic: an RPN, or masks of any class."""
    is_rpn = any("RPN" in kind.__name__ for kind in type(head).__mro__)
    return is_rpn or bool(getattr(head, "class_agnostic", False))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
