"""Names and shapes of this project's ViTDet detectors, the target of several layouts."""

from __future__ import annotations

from mmvitaccel.conversion.layout.blocks import (
    PUBLISHED_DEPTHS,
    block_shapes,
    count,
    size,
    transposed,
    with_bias,
)
from mmvitaccel.conversion.layout.layout import Adapted, Shapes, Weights

BOX, MASK = "roi_head.bbox_head", "roi_head.mask_head"
STAGES = 3  # in Cascade R-CNN


def detector_shapes(weights: Weights) -> Shapes:
    """Return the shapes of a Faster, Mask or Cascade R-CNN with ViTDet.

    Args:
        weights: Tensors by this project's names; they decide which detector it is.
    """
    shapes = backbone_shapes(weights, rel_pos=True) | neck_shapes(weights) | rpn_shapes(weights)
    for head in heads(weights, BOX):
        shapes |= box_shapes(weights, head)
    if any(name.startswith(f"{MASK}.") for name in weights):
        for head in heads(weights, MASK):
            shapes |= mask_shapes(weights, head)
    return shapes


def heads(weights: Weights, name: str) -> list[str]:
    """Return the head's name, or the names of a cascade's three heads."""
    cascade = any(key.startswith(f"{BOX}.0.") for key in weights)
    return [f"{name}.{stage}" for stage in range(STAGES)] if cascade else [name]


def backbone_shapes(weights: Weights, rel_pos: bool) -> Shapes:
    """Return the shapes of the plain transformer.

    Args:
        weights: Tensors by this project's names.
        rel_pos: Whether every block has relative position embeddings.
    """
    patch = "backbone.patch_embed.proj.weight"
    dim = size(weights, patch)
    kernel = (size(weights, patch, 1), size(weights, patch, 2), size(weights, patch, 2))
    hidden = size(weights, "backbone.blocks.0.mlp.fc1.weight")
    depth = max(count(weights, "backbone.blocks"), PUBLISHED_DEPTHS.get(dim, 0))
    shapes = with_bias("backbone.patch_embed.proj", dim, *kernel)
    shapes["backbone.pos_embed"] = (1, size(weights, "backbone.pos_embed", 1), dim)
    shapes |= block_shapes("backbone.blocks", dim, hidden, depth)
    for block in range(depth) if rel_pos else ():
        for axis in "hw":
            name = f"backbone.blocks.{block}.attn.rel_pos_{axis}"
            width = size(weights, "backbone.blocks.0.attn.rel_pos_h", 1)
            # Windowed and global blocks have tables of different lengths.
            shapes[name] = (len(weights[name]) if name in weights else 0, width)
    return shapes


def neck_shapes(weights: Weights) -> Shapes:
    """Return the shapes of the simple feature pyramid."""
    dim = size(weights, "backbone.patch_embed.proj.weight")
    out = size(weights, "neck.simfp_4.0.weight")
    shapes = transposed("neck.simfp_2.0", dim, dim // 2) | with_bias("neck.simfp_2.1", dim // 2)
    shapes |= transposed("neck.simfp_2.3", dim // 2, dim // 4)
    shapes |= transposed("neck.simfp_3.0", dim, dim // 2)
    for path, first, inward in (
        ("simfp_2", 4, dim // 4),
        ("simfp_3", 1, dim // 2),
        ("simfp_4", 0, dim),
        ("simfp_5", 1, dim),
    ):
        shapes[f"neck.{path}.{first}.weight"] = (out, inward, 1, 1)
        shapes[f"neck.{path}.{first + 1}.weight"] = (out, out, 3, 3)
        for layer in (first, first + 1):
            shapes |= with_bias(f"neck.{path}.{layer}.norm", out)
    return shapes


def rpn_shapes(weights: Weights) -> Shapes:
    """Return the shapes of the RPN head, with two convolutions, or one as in older detectors."""
    channels = size(weights, "neck.simfp_4.0.weight")
    anchors = size(weights, "rpn_head.rpn_cls.weight")
    if "rpn_head.rpn_conv.weight" in weights:
        shapes = with_bias("rpn_head.rpn_conv", channels, channels, 3, 3)
    else:
        shapes = {}
        for conv in range(max(2, count(weights, "rpn_head.rpn_conv"))):
            shapes |= with_bias(f"rpn_head.rpn_conv.{conv}.conv", channels, channels, 3, 3)
    shapes |= with_bias("rpn_head.rpn_cls", anchors, channels, 1, 1)
    return shapes | with_bias("rpn_head.rpn_reg", 4 * anchors, channels, 1, 1)


def box_shapes(weights: Weights, head: str) -> Shapes:
    """Return the shapes of a box head: convolutions with LayerNorm, linear layers, two outputs."""
    channels = size(weights, "neck.simfp_4.0.weight")
    shapes = conv_shapes(weights, f"{head}.shared_convs", channels)
    inward = 49 * channels  # RoIs of 7 x 7, flattened channel by channel
    for layer in range(max(1, count(weights, f"{head}.shared_fcs"))):
        outward = size(weights, f"{head}.shared_fcs.{layer}.weight")
        shapes |= with_bias(f"{head}.shared_fcs.{layer}", outward, inward)
        inward = outward
    shapes |= with_bias(f"{head}.fc_cls", size(weights, f"{head}.fc_cls.weight"), inward)
    return shapes | with_bias(f"{head}.fc_reg", size(weights, f"{head}.fc_reg.weight"), inward)


def mask_shapes(weights: Weights, head: str) -> Shapes:
    """Return the shapes of a mask head: convolutions with LayerNorm, upsampling, class logits."""
    channels = size(weights, "neck.simfp_4.0.weight")
    classes = size(weights, f"{head}.conv_logits.weight")
    shapes = conv_shapes(weights, f"{head}.convs", channels)
    shapes |= transposed(f"{head}.upsample", channels, channels)
    return shapes | with_bias(f"{head}.conv_logits", classes, channels, 1, 1)


def conv_shapes(weights: Weights, name: str, channels: int) -> Shapes:
    """Return the shapes of a head's convolutions with LayerNorm, at least four."""
    shapes: Shapes = {}
    for conv in range(max(4, count(weights, name))):
        shapes[f"{name}.{conv}.conv.weight"] = (channels, channels, 3, 3)
        shapes |= with_bias(f"{name}.{conv}.ln", channels)
    return shapes


def read_classes(adapted: Adapted) -> None:
    """Check that the heads have the same classes, and record the settings that a config needs.

    Raises:
        ValueError: If they do not.
    """
    found = heads(adapted.weights, BOX)
    classes = size(adapted.weights, f"{found[0]}.fc_cls.weight") - 1
    for head in found:
        scores = size(adapted.weights, f"{head}.fc_cls.weight")
        boxes = size(adapted.weights, f"{head}.fc_reg.weight")
        if scores != classes + 1 or boxes not in (4, 4 * classes):
            raise ValueError(
                f"'{head}' has {scores} scores and {boxes} box outputs; {classes} classes and the "
                f"background need {classes + 1} scores, and 4 or {4 * classes} box outputs"
            )
    masks = f"{heads(adapted.weights, MASK)[0]}.conv_logits.weight"
    if masks in adapted.weights and len(adapted.weights[masks]) not in (1, classes):
        raise ValueError(
            f"the mask head has {len(adapted.weights[masks])} outputs, but there are {classes} "
            "classes"
        )
    boxes = size(adapted.weights, f"{found[0]}.fc_reg.weight")
    adapted.settings["num_classes"] = classes
    adapted.settings["reg_class_agnostic"] = boxes == 4
    if classes == 80:
        from mmdet.evaluation import get_classes

        adapted.classes = tuple(get_classes("coco"))
