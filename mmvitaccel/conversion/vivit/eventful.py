"""Layout of the Eventful Transformers paper's ViViT: TAdaConv's with a fine-tuned temporal encoder.

On EPIC-Kitchens the paper only classifies verbs; its files have no classifier of nouns.
"""

from __future__ import annotations

import re

from mmvitaccel.conversion.layout.layout import Layout, Target, Weights, has, rows
from mmvitaccel.conversion.vivit.names import VERBS, read_classifiers, recognizer_shapes

_BLOCK_PARTS = {
    "input_layer_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_layer_norm": "norm2",
    "mlp_1": "mlp.fc1",
    "mlp_2": "mlp.fc2",
}


def _in_block(match: re.Match, weights: Weights) -> str:
    encoder, number, part, kind = match.groups()
    return f"backbone.{encoder}.blocks.{number}.{_BLOCK_PARTS[part]}.{kind}"


def _classifier(match: re.Match, weights: Weights) -> str:
    name = "fc_verb" if rows(weights, "classifier.weight") == VERBS else "fc_cls"
    return f"cls_head.{name}.{match[1]}"


_ENCODER = r"(spatial|temporal)_model"
RULES: tuple[tuple[str, Target], ...] = (
    (r"embedding\.conv\.(.+)", r"backbone.patch_embed.\1"),
    (rf"{_ENCODER}\.class_token", r"backbone.\1.cls_token"),
    (rf"{_ENCODER}\.backbone\.position_encoding\.encoding", r"backbone.\1.pos_embed"),
    (
        rf"{_ENCODER}\.backbone\.blocks\.(\d+)\.({'|'.join(_BLOCK_PARTS)})\.(weight|bias)",
        _in_block,
    ),
    (rf"{_ENCODER}\.layer_norm\.(.+)", r"backbone.\1.norm.\2"),
    (r"classifier\.(weight|bias)", _classifier),
)
EVENTFUL_VIVIT = Layout(
    name="eventful-vivit",
    title="the Eventful Transformers paper's ViViT, with a fine-tuned temporal encoder",
    recognise=lambda w: has(w, r"spatial_model\.class_token", r"temporal_model\.class_token"),
    rules=RULES,
    needed=recognizer_shapes,
    adapt=read_classifiers,
)
