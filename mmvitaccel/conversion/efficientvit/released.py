"""Layouts of Microsoft's EfficientViT: ImageNet models as released and in timm, two detectors."""

from __future__ import annotations

from mmvitaccel.conversion.layout.blocks import count, size, transposed, with_bias
from mmvitaccel.conversion.layout.layout import Layout, Shapes, Weights, has
from mmvitaccel.models.efficientvit.arch import ARCHS
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.weights import (
    describe_weights,
    from_timm_key,
)
from mmvitaccel.models.weights.fit import is_derived

_INDEX = r".+\.attention_bias_idxs"
_NO_INDEX = (_INDEX, lambda match, weights: ())
_LEAVE = (
    (_INDEX, "calculated from the window size"),
    (r"ema_.+", "averaged weights"),
)


def backbone_shapes(weights: Weights) -> Shapes:
    """Return the shapes of the backbone.

    They are those of the published model with these widths, else of a model with the dimensions
    that the weights have.

    Raises:
        ValueError: If the weights have no stage.
    """
    own = {n[len("backbone.") :]: v for n, v in weights.items() if n.startswith("backbone.")}
    fields = describe_weights(own)
    if fields is None:
        raise ValueError(
            "the first block of a stage is missing; the file is truncated or belongs to another "
            "model"
        )
    widths = fields["embed_dims"]
    published = [a for a in ARCHS.values() if a["embed_dims"][: len(widths)] == widths]
    arch = published[0] if published else fields
    windows = [
        round(size(own, next(n for n in own if _is_table(n, stage)), 1) ** 0.5)
        if any(_is_table(n, stage) for n in own)
        else 7
        for stage in range(1, len(arch["embed_dims"]) + 1)
    ]
    state = EfficientViT(arch, window_size=windows).state_dict()
    return {f"backbone.{n}": tuple(v.shape) for n, v in state.items() if not is_derived(n)}


def _is_table(name: str, stage: int) -> bool:
    return name.startswith(f"blocks{stage}.") and name.endswith("attention_biases")


def classifier_shapes(weights: Weights) -> Shapes:
    """Return the shapes of an ImageNet model: backbone, BatchNorm, linear layer."""
    shapes = backbone_shapes(weights)
    dim = size(weights, "head.fc.weight", 1)
    shapes |= with_bias("head.fc", size(weights, "head.fc.weight"), dim)
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"neck.bn.{part}"] = (dim,)
    return shapes


def retinanet_shapes(weights: Weights) -> Shapes:
    """Return the shapes of a RetinaNet whose pyramid has one finer level."""
    shapes = backbone_shapes(weights) | neck_shapes(weights, finer=1)
    channels = size(weights, "neck.fpn_convs.0.conv.weight")
    for branch in ("cls_convs", "reg_convs"):
        for layer in range(max(4, count(weights, f"bbox_head.{branch}"))):
            shapes |= with_bias(f"bbox_head.{branch}.{layer}.conv", channels, channels, 3, 3)
    for name in ("retina_cls", "retina_reg"):
        outward = size(weights, f"bbox_head.{name}.weight")
        shapes |= with_bias(f"bbox_head.{name}", outward, channels, 3, 3)
    return shapes


def mask_rcnn_shapes(weights: Weights) -> Shapes:
    """Return the shapes of a Mask R-CNN whose pyramid has two finer levels."""
    shapes = backbone_shapes(weights) | neck_shapes(weights, finer=2)
    channels = size(weights, "neck.fpn_convs.0.conv.weight")
    shapes |= with_bias("rpn_head.rpn_conv", channels, channels, 3, 3)
    for name in ("rpn_cls", "rpn_reg"):
        outward = size(weights, f"rpn_head.{name}.weight")
        shapes |= with_bias(f"rpn_head.{name}", outward, channels, 1, 1)
    hidden = size(weights, "roi_head.bbox_head.shared_fcs.0.weight")
    shapes |= with_bias("roi_head.bbox_head.shared_fcs.0", hidden, 49 * channels)
    shapes |= with_bias("roi_head.bbox_head.shared_fcs.1", hidden, hidden)
    for name in ("fc_cls", "fc_reg"):
        outward = size(weights, f"roi_head.bbox_head.{name}.weight")
        shapes |= with_bias(f"roi_head.bbox_head.{name}", outward, hidden)
    for layer in range(4):
        shapes |= with_bias(f"roi_head.mask_head.convs.{layer}.conv", channels, channels, 3, 3)
    shapes |= transposed("roi_head.mask_head.upsample", channels, channels)
    classes = size(weights, "roi_head.mask_head.conv_logits.weight")
    return shapes | with_bias("roi_head.mask_head.conv_logits", classes, channels, 1, 1)


def neck_shapes(weights: Weights, finer: int) -> Shapes:
    """Return the shapes of the pyramid: the backbone's three levels and ``finer`` upsampled ones.

    The finer levels come from transposed convolutions.
    """
    channels = size(weights, "neck.fpn_convs.0.conv.weight")
    shapes: Shapes = {}
    for level in range(3):
        inward = size(weights, f"neck.lateral_convs.{level}.conv.weight", 1)
        shapes |= with_bias(f"neck.lateral_convs.{level}.conv", channels, inward, 1, 1)
        shapes |= with_bias(f"neck.fpn_convs.{level}.conv", channels, channels, 3, 3)
    for level in range(finer):
        shapes |= transposed(f"neck.extra_trans_convs.{level}.conv", channels, channels)
        shapes |= with_bias(f"neck.extra_fpn_convs.{level}.conv", channels, channels, 3, 3)
    return shapes


def _from_timm(name: str) -> str:
    key = from_timm_key(name).replace("head.bn.", "neck.bn.").replace("head.l.", "head.fc.")
    return key if key.startswith(("neck.", "head.")) else f"backbone.{key}"


_STEM = r"patch_embed\.0\.c\.weight"
EFFICIENTVIT_IMAGENET = Layout(
    name="efficientvit-imagenet",
    title="Microsoft's EfficientViT for ImageNet, as released",
    recognise=lambda w: has(w, _STEM, r"blocks1\..+"),
    rules=(
        _NO_INDEX,
        (r"((?:patch_embed|blocks\d)\..+)", r"backbone.\1"),
        (r"head\.bn\.(.+)", r"neck.bn.\1"),
        (r"head\.l\.(.+)", r"head.fc.\1"),
    ),
    leave=_LEAVE,
    needed=classifier_shapes,
)
EFFICIENTVIT_TIMM = Layout(
    name="efficientvit-timm",
    title="Microsoft's EfficientViT for ImageNet, as in timm",
    recognise=lambda w: has(
        w, r"patch_embed\.conv1\.conv\.weight", r"stages\.0\.blocks\.0\.dw0\..+"
    ),
    rules=(_NO_INDEX, (r"(?:patch_embed|stages|head)\..+", lambda m, w: _from_timm(m[0]))),
    leave=_LEAVE,
    needed=classifier_shapes,
)
EFFICIENTVIT_RETINANET = Layout(
    name="efficientvit-retinanet",
    title="RetinaNet with Microsoft's EfficientViT, mmdet 2.x",
    recognise=lambda w: has(w, rf"backbone\.{_STEM}", r"bbox_head\.retina_cls\.weight"),
    rules=(_NO_INDEX, (r"((?:backbone|neck|bbox_head)\..+)", r"\1")),
    leave=_LEAVE,
    needed=retinanet_shapes,
)
EFFICIENTVIT_MASK_RCNN = Layout(
    name="efficientvit-mask-rcnn",
    title="Mask R-CNN with Microsoft's EfficientViT, mmdet 2.x",
    recognise=lambda w: has(w, rf"backbone\.{_STEM}", r"roi_head\.mask_head\..+"),
    rules=(_NO_INDEX, (r"((?:backbone|neck|rpn_head|roi_head)\..+)", r"\1")),
    leave=_LEAVE,
    needed=mask_rcnn_shapes,
)
