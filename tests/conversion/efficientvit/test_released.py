"""EfficientViT of every size in every layout against timm's own models, and its detectors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from mmvitaccel.models.efficientvit.backbone import EfficientViT

RELEASED = Path(__file__).parent / "released" / "retinanet_efficientvit_m4_coco.json"
SIZES = ["m0", "m1", "m2", "m3", "m4", "m5"]
WINDOWS = (7, 7, 4)  # of the ImageNet models


def timm_model(size, fill):
    model = timm.create_model(f"efficientvit_{size}").eval().requires_grad_(False)
    state = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if value.ndim}
    model.load_state_dict(fill(shapes), strict=False)
    return model


def released_name(name):
    """Return the authors' name of a tensor in timm."""
    parts = name.split(".")
    if parts[0] == "patch_embed":
        parts[1] = str(2 * (int(parts[1][-1]) - 1))
    if parts[0] == "stages":
        stage, part, rest = int(parts[1]), parts[2], parts[3:]
        if part == "blocks":
            number = int(rest.pop(0)) + (3 if stage else 0)
        else:
            number = ["res1", "patchmerge", "res2"].index(rest.pop(0))
        parts = [f"blocks{stage + 1}", str(number), *rest]
    if parts[0] == "head":
        parts[1] = {"bn": "bn", "linear": "l"}[parts[1]]
    return re.sub(r"\.conv\.(weight|bias)$", r".c.\1", ".".join(parts))


@pytest.mark.parametrize("size", SIZES)
def test_imagenet_models_equal_timms(size, fill, convert):
    theirs = timm_model(size, fill)
    state = {n: v for n, v in theirs.state_dict().items() if "attention_bias_idxs" not in n}
    weights = convert(state, "efficientvit-timm")
    as_released = {released_name(name): value for name, value in state.items()}
    again = convert(as_released, "efficientvit-imagenet")
    assert weights.keys() == again.keys()
    assert all(weights[name] is again[name] for name in weights)

    ours = EfficientViT(size, window_size=WINDOWS).eval()
    backbone = {n[9:]: v for n, v in weights.items() if n.startswith("backbone.")}
    ours.load_state_dict(backbone, strict=True)
    img = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = ours(img)
        for ours_map, their_map in zip(maps, theirs.forward_intermediates(img)[1]):
            torch.testing.assert_close(ours_map, their_map, rtol=1e-4, atol=1e-4)
        x = maps[-1].mean((2, 3))
        x = F.batch_norm(
            x,
            weights["neck.bn.running_mean"],
            weights["neck.bn.running_var"],
            weights["neck.bn.weight"],
            weights["neck.bn.bias"],
        )
        logits = F.linear(x, weights["head.fc.weight"], weights["head.fc.bias"])
        torch.testing.assert_close(logits, theirs(img), rtol=1e-4, atol=1e-4)


def detector_backbone(fill):
    """Return timm's M4 with windows of 7 in every stage, and its weights by the released names."""
    theirs = timm.create_model("efficientvit_m4", window_size=(7, 7, 7), img_size=448)
    theirs.eval().requires_grad_(False)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items() if value.ndim}
    theirs.load_state_dict(fill(shapes), strict=False)
    state = {
        released_name(n): v
        for n, v in theirs.state_dict().items()
        if not n.startswith("head") and "idxs" not in n
    }
    return theirs, {f"backbone.{name}": value for name, value in state.items()}


def pyramid(weights, maps, finer):
    """The published FPN: laterals from coarse to fine, finer ones by transposed convolutions."""

    def conv(name, x, **options):
        name = f"neck.{name}.conv"
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    laterals = [conv(f"lateral_convs.{i}", x) for i, x in enumerate(maps)]
    for i in (1, 0):
        size = laterals[i].shape[2:]
        laterals[i] = laterals[i] + F.interpolate(laterals[i + 1], size, mode="nearest")
    fine = [laterals[0]]
    for i in range(finer):
        name = f"neck.extra_trans_convs.{i}.conv"
        x = F.conv_transpose2d(fine[0], weights[f"{name}.weight"], weights[f"{name}.bias"], 2)
        fine = [x, *fine]
    outs = [conv(f"extra_fpn_convs.{i}", fine[i], padding=1) for i in range(finer)]
    outs += [conv(f"fpn_convs.{i}", x, padding=1) for i, x in enumerate(laterals)]
    while len(outs) < 5:
        outs.append(outs[-1][:, :, ::2, ::2])
    return outs


def mmdet_neck(finer):
    """Return the names and shapes of the pyramid."""
    shapes = {}
    for i, channels in enumerate((128, 256, 384)):
        shapes[f"neck.lateral_convs.{i}.conv.weight"] = (256, channels, 1, 1)
        shapes[f"neck.fpn_convs.{i}.conv.weight"] = (256, 256, 3, 3)
    for i in range(finer):
        shapes[f"neck.extra_trans_convs.{i}.conv.weight"] = (256, 256, 2, 2)
        shapes[f"neck.extra_fpn_convs.{i}.conv.weight"] = (256, 256, 3, 3)
    return shapes | {name.replace("weight", "bias"): (256,) for name in shapes}


def test_retinanet_of_mmdet_2(fill, convert, build_from):
    theirs, weights = detector_backbone(fill)
    heads = {}
    for branch in ("cls", "reg"):
        for i in range(4):
            heads[f"bbox_head.{branch}_convs.{i}.conv.weight"] = (256, 256, 3, 3)
            heads[f"bbox_head.{branch}_convs.{i}.conv.bias"] = (256,)
    for branch, channels in (("cls", 720), ("reg", 36)):
        heads[f"bbox_head.retina_{branch}.weight"] = (channels, 256, 3, 3)
        heads[f"bbox_head.retina_{branch}.bias"] = (channels,)
    weights |= fill(mmdet_neck(finer=1) | heads)
    released = json.loads(RELEASED.read_text())
    assert {n: tuple(s) for n, s in released.items() if "idxs" not in n} == {
        n: tuple(v.shape) for n, v in weights.items() if not n.startswith("bbox_head")
    }
    converted = convert(weights, "efficientvit-retinanet")
    model = build_from("retinanet_efficientvit_m4_coco.py", converted)
    img = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        levels = pyramid(weights, theirs.forward_intermediates(img)[1], finer=1)
        classes, boxes = model.bbox_head(model.extract_feat(img))
        for level, scores, deltas in zip(levels, classes, boxes):
            for branch, found in (("cls", scores), ("reg", deltas)):
                x = level
                for i in range(4):
                    name = f"bbox_head.{branch}_convs.{i}.conv"
                    x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
                    x = x.relu()
                name = f"bbox_head.retina_{branch}"
                x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
                torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


def test_mask_rcnn_of_mmdet_2(fill, convert, build_from):
    theirs, weights = detector_backbone(fill)
    heads = {
        "rpn_head.rpn_conv": (256, 256, 3, 3),
        "rpn_head.rpn_cls": (3, 256, 1, 1),
        "rpn_head.rpn_reg": (12, 256, 1, 1),
        "roi_head.bbox_head.shared_fcs.0": (1024, 256 * 49),
        "roi_head.bbox_head.shared_fcs.1": (1024, 1024),
        "roi_head.bbox_head.fc_cls": (81, 1024),
        "roi_head.bbox_head.fc_reg": (320, 1024),
        **{f"roi_head.mask_head.convs.{i}.conv": (256, 256, 3, 3) for i in range(4)},
        "roi_head.mask_head.upsample": (256, 256, 2, 2),
        "roi_head.mask_head.conv_logits": (80, 256, 1, 1),
    }
    shapes = {f"{name}.weight": shape for name, shape in heads.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in heads.items()}
    weights |= fill(mmdet_neck(finer=2) | shapes) | {"ema_neck_x": torch.ones(1)}
    converted = convert(weights, "efficientvit-mask-rcnn")
    assert "ema_neck_x" not in converted
    model = build_from("mask-rcnn_efficientvit_m4_coco.py", converted)
    img = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(1))
    rois = torch.tensor([[0, 4.0, 8, 50, 90], [0, 30.0, 2, 70, 44]])  # all of the finest level
    with torch.no_grad():
        levels = pyramid(weights, theirs.forward_intermediates(img)[1], finer=2)
        feats = model.extract_feat(img)
        for ours, level in zip(feats, levels):
            torch.testing.assert_close(ours, level, rtol=1e-3, atol=1e-3)
        found = model.roi_head._bbox_forward(feats, rois)
        x = roi_align(levels[0], rois, 7, 1 / 4, 0, aligned=True).flatten(1)
        for i in range(2):
            name = f"roi_head.bbox_head.shared_fcs.{i}"
            x = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]).relu()
        for output, name in (("cls_score", "fc_cls"), ("bbox_pred", "fc_reg")):
            name = f"roi_head.bbox_head.{name}"
            expected = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            torch.testing.assert_close(found[output], expected, rtol=1e-3, atol=1e-3)
        x = roi_align(levels[0], rois, 14, 1 / 4, 0, aligned=True)
        for i in range(4):
            name = f"roi_head.mask_head.convs.{i}.conv"
            x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        name = "roi_head.mask_head.upsample"
        x = F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2).relu()
        name = "roi_head.mask_head.conv_logits"
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        masks = model.roi_head._mask_forward(feats, rois)["mask_preds"]
        torch.testing.assert_close(masks, x, rtol=1e-3, atol=1e-3)
