"""Training on clips: what evaluation computes, with gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from mmvitaccel import TopK, apply_eventful
from mmvitaccel.testing.models import timm_model, vitdet

MODELS = {
    "vitdet": lambda: vitdet(
        img_size=64, patch_size=8, embed_dim=24, depth=3, num_heads=3, window_size=3,
        window_block_indexes=(0, 2),
    ),
    "timm": lambda: timm_model("vit_tiny_patch16_224", img_size=96, depth=2, num_classes=0),
    "timm with rotary positions": lambda: timm_model(
        "eva02_tiny_patch14_224", img_size=84, depth=2, num_classes=0
    ),
}  # fmt: skip
SIZE = {"vitdet": 64, "timm": 96, "timm with rotary positions": 84}


def make(name):
    torch.manual_seed(0)
    return MODELS[name]()


def clips(name, count=2, frames=3):
    torch.manual_seed(1)
    first = torch.randn(count, 1, 3, SIZE[name], SIZE[name])
    change = 0.3 * torch.randn(count, frames, 3, SIZE[name], SIZE[name])
    return (first + change.cumsum(1)).flatten(0, 1)


def output(model, x):
    out = model(x)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", MODELS)
def test_training_computes_what_evaluation_does(name):
    trained, evaluated = make(name).train(), make(name).eval()
    x = clips(name)
    apply_eventful(trained, TopK(1), "tokenwise").train_on_clips(3, TopK(7))
    handle = apply_eventful(evaluated, TopK(7), "tokenwise")
    ours = output(trained, x).unflatten(0, (2, 3))
    dense = output(make(name).train(), x).unflatten(0, (2, 3))
    with torch.no_grad():
        for clip in range(2):
            handle.reset()
            for frame in range(3):
                expected = output(evaluated, x[3 * clip + frame][None])[0]
                torch.testing.assert_close(ours[clip, frame], expected, rtol=1e-4, atol=1e-5)
                same = torch.allclose(ours[clip, frame], dense[clip, frame], atol=1e-4)
                assert same == (frame == 0)


@pytest.mark.parametrize("name", MODELS)
def test_where_all_pass_it_is_the_hosts_training(name):
    host, model = make(name).train(), make(name).train()
    apply_eventful(model, TopK(1)).train_on_clips(3, TopK(64))
    x, weight = clips(name), None
    for trained in (host, model):
        out = output(trained, x)
        weight = torch.randn_like(out) if weight is None else weight
        (out * weight).sum().backward()
    for (key, ours), theirs in zip(model.named_parameters(), host.parameters()):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3, msg=key)


def test_it_ends_and_evaluation_is_not_touched():
    model = make("vitdet").train()
    handle = apply_eventful(model, TopK(7))
    x = clips("vitdet")
    dense = output(model, x)
    handle.train_on_clips(3, TopK(7))
    assert not torch.equal(output(model, x), dense)
    assert not torch.equal(output(copy.deepcopy(model), x), dense)  # a copy trains alike
    handle.train_on_clips(None)
    assert torch.equal(output(model, x), dense)
    handle.train_on_clips(3, TopK(7))
    model.eval()
    with torch.no_grad():
        model(x[:1])
        model(x[1:2])
    assert handle.frames[0].passed == [(7, 7, 7)] * 3


def test_what_makes_no_sense_is_refused():
    handle = apply_eventful(make("vitdet"), TopK(7))
    for frames in (0, 1.5, "2"):
        said = f"train_on_clips: frames={frames!r} must be a whole number of frames, at least 1"
        with pytest.raises(ValueError, match=said):
            handle.train_on_clips(frames, TopK(1))
    for policy in ("all", None):
        with pytest.raises(TypeError, match=f"policy={policy!r} has no method select"):
            handle.train_on_clips(2, policy)
    dropping = timm_model("vit_tiny_patch16_224", img_size=96, depth=1, attn_drop_rate=0.25)
    with pytest.raises(ValueError, match=r"VisionTransformer drops 25% of the attention weights"):
        apply_eventful(dropping.train(), TopK(7)).train_on_clips(2, TopK(7))
