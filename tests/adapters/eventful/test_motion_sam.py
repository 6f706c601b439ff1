"""Moving cameras on SAM's encoders: equal to the dense model on pictures that stay on the scene."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvitaccel import Always, TopK, Translation, apply_eventful
from mmvitaccel.testing.aligned import NaiveScene, on_frame
from tests.adapters.conftest import scramble

PATCH, SIDE, WINDOW, ROOM = 16, 160, 4, 200
GRID = (SIDE // PATCH, SIDE // PATCH)


class Names(NamedTuple):
    """What the parts of an encoder and its blocks are called."""

    blocks: str
    norm1: str
    norm2: str
    mlp: str


def mmpretrain_sam(**kwargs):
    backbones = pytest.importorskip("mmpretrain.models.backbones", reason="no mmpretrain here")
    arch = dict(
        embed_dims=32, num_layers=3, num_heads=4, feedforward_channels=64, global_attn_indexes=[1]
    )
    size = dict(arch=arch, img_size=SIDE, patch_size=PATCH, window_size=WINDOW, out_channels=16)
    return backbones.ViTSAM(**{**size, **kwargs}), Names("layers", "ln1", "ln2", "ffn")


def segment_anything():
    from segment_anything.modeling import ImageEncoderViT

    size = dict(img_size=SIDE, patch_size=PATCH, embed_dim=32, depth=3, num_heads=4, out_chans=16)
    model = ImageEncoderViT(**size, use_rel_pos=True, window_size=WINDOW, global_attn_indexes=(1,))
    return model, Names("blocks", "norm1", "norm2", "mlp")


def transformers_sam(name="Sam"):
    from transformers import SamHQVisionConfig, SamVisionConfig
    from transformers.models.sam import modeling_sam
    from transformers.models.sam_hq import modeling_sam_hq

    config = (SamVisionConfig if name == "Sam" else SamHQVisionConfig)(
        image_size=SIDE, patch_size=PATCH, window_size=WINDOW, global_attn_indexes=[1], mlp_dim=64,
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, output_channels=16,
    )  # fmt: skip
    module = modeling_sam if name == "Sam" else modeling_sam_hq
    model = getattr(module, f"{name}VisionEncoder")._from_config(config)
    return model, Names("layers", "layer_norm1", "layer_norm2", "mlp")


ENCODERS = [
    pytest.param(mmpretrain_sam, id="mmpretrain"),
    pytest.param(segment_anything, id="SAM", marks=pytest.mark.extras("hosts", "segment_anything")),
    pytest.param(
        transformers_sam, id="transformers", marks=pytest.mark.extras("hosts", "transformers")
    ),
]


def pan(step, frames):
    generator = torch.Generator().manual_seed(0)
    side, whole = SIDE + 2 * ROOM, 0
    for coarse in (4, 8, 16, 32, 64):
        noise = torch.randn(1, 3, side // coarse + 2, side // coarse + 2, generator=generator)
        whole = whole + F.interpolate(noise, (side, side), mode="bilinear")
    for t in range(frames):
        y, x = ROOM + t * step[0], ROOM + t * step[1]
        yield whole[..., y : y + SIDE, x : x + SIDE].clone(), (t * step[0], t * step[1])


def aligned(model, names, first, offset):
    """The encoder for a view: positions and windows are those of the scene."""
    model = copy.deepcopy(model)
    rows, columns = ((torch.arange(s) + f).clamp(0, s - 1) for s, f in zip(GRID, first))
    if hasattr(model, "pos_embed"):
        model.pos_embed = nn.Parameter(model.pos_embed[:, rows][:, :, columns], False)
    blocks = getattr(model, names.blocks)
    for block in blocks:
        block.forward = _in_windows_of_scene(block, names, first)

    def back(block, given, x):
        return on_frame(x.flatten(1, 2), GRID, first, offset, PATCH).unflatten(1, GRID)

    blocks[-1].register_forward_hook(back)
    return model


def _in_windows_of_scene(block, names, first):
    norm1, norm2, mlp = (getattr(block, name) for name in names[1:])

    def attend(x):
        out = block.attn(x)
        return out[0] if isinstance(out, tuple) else out

    def forward(x):
        size, (height, width) = block.window_size, x.shape[1:3]
        y = norm1(x)
        if size:
            top, left = (start % size for start in first)
            bottom, right = -(top + height) % size, -(left + width) % size
            y = F.pad(y, (0, 0, left, right, top, bottom))
            out = torch.zeros_like(y)
            for row in range(0, y.shape[1], size):
                for column in range(0, y.shape[2], size):
                    there = (slice(None), slice(row, row + size), slice(column, column + size))
                    out[there] = attend(y[there])
            y = out[:, top : top + height, left : left + width]
        else:
            y = attend(y)
        x = x + y
        if names.mlp == "ffn":
            return mlp(norm2(x), identity=x)
        return x + mlp(norm2(x))

    return forward


def encoded(model, x):
    with torch.no_grad():
        out = model(x)
    out = getattr(out, "last_hidden_state", out)
    return out[0] if isinstance(out, tuple) else out


def off(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_without_absolute_positions():
    model, names = mmpretrain_sam(use_abs_pos=False)
    scramble(model).eval()
    dense, naive = copy.deepcopy(model), NaiveScene(PATCH, ROOM)
    apply_eventful(model, Always(), motion=Translation(reach=0.9))
    for frame, offset in pan((7, 9), 5):
        found, view = encoded(model, frame), naive.see(frame, offset)
        assert off(found, encoded(aligned(dense, names, naive.first, offset), view)) < 1e-4


@pytest.mark.parametrize("step", [(3, -5), (16, 16)], ids=str)
@pytest.mark.parametrize("make", ENCODERS)
def test_all_tokens_are_those_of_the_dense_encoder_on_the_aligned_picture(make, step):
    model, names = make()
    scramble(model).eval()
    dense, naive = copy.deepcopy(model), NaiveScene(PATCH, ROOM)
    handle = apply_eventful(model, Always(), motion=Translation(reach=0.9))
    for frame, offset in pan(step, 9):
        found = encoded(model, frame)
        assert handle.frames[0].camera.offset == offset
        view = naive.see(frame, offset)
        assert off(found, encoded(aligned(dense, names, naive.first, offset), view)) < 1e-4
    handle.remove()
    assert torch.equal(encoded(model, frame), encoded(dense, frame))


@pytest.mark.parametrize("make", ENCODERS)
def test_a_pan_costs_the_budget_and_what_it_saved(make):
    model, _ = make()
    scramble(model).eval()
    handle, passed = apply_eventful(model, TopK(12), motion=Translation(reach=0.9)), []
    for frame, _ in pan((0, 4), 6):
        encoded(model, frame)
        passed.append({n for block in handle.frames[0].passed for n in block})
    assert passed == [{100}, {10}, {10}, {10}, {18}, {10}]  # in the fifth the view moves
    assert handle.frames[0].camera.offset == (0, 20) and not handle.frames[0].refreshed


def test_refusals():
    ((frame, _),) = pan((0, 0), 1)
    model, _ = mmpretrain_sam(out_indices=(0, 2), out_channels=0)
    apply_eventful(model, TopK(5), motion=Translation())
    model.eval()
    with pytest.raises(ValueError, match=r"this method of mmpretrain.*reads tokens of inner bl"):
        model(frame)
    model, _ = mmpretrain_sam(out_indices=(1,), out_channels=0)
    apply_eventful(model, TopK(5), motion=Translation())
    model.eval()
    with pytest.raises(ValueError, match=r"this method of mmpretrain.*reads tokens of inner bl"):
        model(frame)
    model, _ = mmpretrain_sam()
    apply_eventful(model, TopK(5), motion=Translation())
    model.eval()
    with pytest.raises(ValueError, match=r"its positions are those of 10 x 10 tokens; build it"):
        model(frame[..., :144])


@pytest.mark.extras("hosts", "transformers")
def test_calls_that_read_inner_layers_are_refused():
    ((frame, _),) = pan((0, 0), 1)
    model, _ = transformers_sam()
    apply_eventful(model.eval(), TopK(5), motion=Translation())
    with pytest.raises(ValueError, match=r"this method of transformers.*reads tokens of inne"):
        model(frame, output_hidden_states=True)
    assert encoded(model, frame).shape == (1, 16, *GRID)
    model, _ = transformers_sam("SamHQ")
    with pytest.raises(ValueError, match=r"SAM-HQ vision encoder is not among the models that"):
        apply_eventful(model.eval(), TopK(5), motion=Translation())
