"""What pipelines load of the annotations, and what heads learn from."""

from __future__ import annotations

import pytest
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.loaded import check_loaded


def head(name: str = "FCNMaskHead", module: str = "mmdet.models.heads") -> nn.Module:
    return type(name, (nn.Module,), {"__module__": module})()


def detector(**parts: nn.Module) -> nn.Module:
    """With dotted names, written with two underscores."""
    model = nn.Module()
    for key, part in parts.items():
        *outer, last = key.split("__")
        holder = model
        for name in outer:
            if not hasattr(holder, name):
                setattr(holder, name, nn.Module())
            holder = getattr(holder, name)
        setattr(holder, last, part)
    return model


def steps(**given) -> list[dict]:
    return [dict(type="LoadImageFromFile"), dict(type="mmdet.LoadAnnotations", **given)]


@pytest.mark.parametrize(
    ("parts", "given", "sentence"),
    [
        (
            dict(roi_head__mask_head=head()),
            {},
            r"^d\.pipeline\.1 \(LoadAnnotations\) has no with_mask=True, but the model's roi_head\."
            r"mask_head learns from what it loads; set d\.pipeline\.1\.with_mask=True, or",
        ),
        (dict(mask_head=head("SOLOHead")), dict(with_mask=False), "the model's mask_head learns"),
        (dict(roi_head__mask_head=nn.ModuleList([head()])), {}, "no with_mask=True"),
        (dict(roi_head__semantic_head=head()), {}, "no with_seg=True.* roi_head.semantic_head"),
        (dict(rpn_head=head("RPNHead")), dict(with_bbox=False), "no with_bbox=True.* rpn_head"),
        (dict(bbox_head=head("FCOSHead")), dict(with_bbox=False), "no with_bbox=True.* bbox_head"),
    ],
)
def test_what_a_head_learns_from_is_loaded(parts, given, sentence):
    with pytest.raises(UserError, match=sentence):
        check_loaded(detector(**parts), "d", steps(**given))


@pytest.mark.parametrize(
    ("parts", "pipeline"),
    [
        (dict(roi_head__mask_head=head(), bbox_head=head()), steps(with_mask=True)),
        (dict(roi_head__mask_head=None, bbox_head=head()), steps()),
        (dict(mask_head=head("BoxInstMaskHead"), bbox_head=head()), steps(with_bbox=True)),
        (dict(mask_head=head("OwnHead", "own.heads")), steps()),
        (dict(mask_head=head()), [*steps(), dict(type="LoadAnnotations", with_mask=True)]),
        (dict(mask_head=head()), [dict(type="LoadPanopticAnnotations")]),
        (dict(mask_head=head()), []),
        (dict(backbone=head()), steps(with_bbox=False)),
    ],
)
def test_pipelines_as_they_are(parts, pipeline):
    check_loaded(detector(**parts), "d", pipeline)
