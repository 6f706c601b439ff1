"""mmdet's RoI heads: Faster and Mask R-CNN, Cascade R-CNN (arXiv 1906.09756)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mmvitaccel.adapters.base import class_name, host_class, named_base
from mmvitaccel.adapters.parts import RoIAdapter

_HEADS = "mmdet.models.roi_heads"
_EXTRACTOR = f"{_HEADS}.roi_extractors.single_level_roi_extractor.SingleRoIExtractor"
_ALIGN = "mmcv.ops.roi_align.RoIAlign"
# Heads that process each proposal independently.
_BOX = (
    f"{_HEADS}.bbox_heads.bbox_head.BBoxHead",
    f"{_HEADS}.bbox_heads.convfc_bbox_head.ConvFCBBoxHead",
)
_MASK = (f"{_HEADS}.mask_heads.fcn_mask_head.FCNMaskHead",)
_RESULTS = {"_bbox_forward": ("cls_score", "bbox_pred"), "_mask_forward": ("mask_preds",)}


def _each(module: nn.Module) -> Iterable[nn.Module]:
    return module if isinstance(module, nn.ModuleList) else [module]


def _extractor(head: nn.Module, method: str, stage: int) -> nn.Module:
    found = head.bbox_roi_extractor if method == "_bbox_forward" else head.mask_roi_extractor
    return list(_each(found))[stage]


def _samplers(head: nn.Module) -> list[nn.Module]:
    found = [*_each(head.bbox_roi_extractor)]
    if head.with_mask:
        found += _each(head.mask_roi_extractor)
    # Bbox and mask heads may share an extractor
    return list(dict.fromkeys(layer for extractor in found for layer in extractor.roi_layers))


def _refuse(head: nn.Module) -> str | None:
    if not head.with_bbox:
        return "it has no bbox head"
    kinds = dict(bbox_head=_BOX, bbox_roi_extractor=(_EXTRACTOR,))
    if head.with_mask:
        kinds.update(mask_head=_MASK, mask_roi_extractor=(_EXTRACTOR,))
    for name, classes in kinds.items():
        for module in _each(getattr(head, name)):
            base = named_base(module, classes)
            if base is None or host_class(module).forward is not base.forward:
                return f"its {name} is a {class_name(module)}; supported is {classes[-1]}"
            for layer in getattr(module, "roi_layers", ()):
                if class_name(layer) != _ALIGN:
                    return f"its {name} samples with {class_name(layer)}; supported is {_ALIGN}"
    for path, module in head.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch and module.running_mean is None:
            return (
                f"{path} is a BatchNorm without running statistics, which averages over proposals"
            )
    return None


def _record(name: str, classes: tuple[str, ...], arguments: tuple[str, ...]) -> RoIAdapter:
    return RoIAdapter(
        name=name,
        classes=classes,
        steps={method: (arguments, results) for method, results in _RESULTS.items()},
        extractor=_extractor,
        samplers=_samplers,
        refuse=_refuse,
        methods=("predict", "forward", *_RESULTS),
    )


ROI_HEADS = (
    _record(
        "mmdet StandardRoIHead", (f"{_HEADS}.standard_roi_head.StandardRoIHead",), ("x", "rois")
    ),
    _record(
        "mmdet CascadeRoIHead",
        (
            f"{_HEADS}.cascade_roi_head.CascadeRoIHead",
            "mmvitaccel.models.vitdet.cascade_roi_head.CascadeRoIHead",
        ),
        ("stage", "x", "rois"),
    ),
)
