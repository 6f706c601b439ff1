"""Layout of TAdaConv's "ViViT Fact. Enc." for Kinetics-400 and EPIC-Kitchens-100; ``.pyth``."""

from __future__ import annotations

import re

from mmvitaccel.conversion.layout.layout import Layout, Target, Weights, has
from mmvitaccel.conversion.vivit.names import read_classifiers, recognizer_shapes

_ENCODERS = {"layers": "spatial", "layers_temporal": "temporal"}
_BLOCK_PARTS = {
    "norm": "norm1",
    "attn.to_qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm_ffn": "norm2",
    "ffn.net.0": "mlp.fc1",
    "ffn.net.3": "mlp.fc2",
}
_CLASSIFIERS = {"linear": "fc_cls", "linear1": "fc_verb", "linear2": "fc_noun"}


def _in_block(match: re.Match, weights: Weights) -> str:
    encoder, number, part, kind = match.groups()
    return f"backbone.{_ENCODERS[encoder]}.blocks.{number}.{_BLOCK_PARTS[part]}.{kind}"


_PARTS = "|".join(re.escape(part) for part in _BLOCK_PARTS)
RULES: tuple[tuple[str, Target], ...] = (
    (r"backbone\.stem\.conv1\.(.+)", r"backbone.patch_embed.\1"),
    (r"backbone\.cls_token", "backbone.spatial.cls_token"),
    (r"backbone\.pos_embd", "backbone.spatial.pos_embed"),
    (r"backbone\.norm\.(.+)", r"backbone.spatial.norm.\1"),
    (r"backbone\.cls_token_out", "backbone.temporal.cls_token"),
    (r"backbone\.temp_embd", "backbone.temporal.pos_embed"),
    (r"backbone\.norm_out\.(.+)", r"backbone.temporal.norm.\1"),
    (rf"backbone\.(layers|layers_temporal)\.(\d+)\.({_PARTS})\.(weight|bias)", _in_block),
    (r"head\.(linear[12]?)\.(.+)", lambda m, w: f"cls_head.{_CLASSIFIERS[m[1]]}.{m[2]}"),
)
TADACONV_VIVIT = Layout(
    name="tadaconv-vivit",
    title='TAdaConv\'s "ViViT Fact. Enc."',
    recognise=lambda w: has(w, r"backbone\.stem\.conv1\.weight", r"backbone\.temp_embd"),
    rules=RULES,
    needed=recognizer_shapes,
    adapt=read_classifiers,
)
