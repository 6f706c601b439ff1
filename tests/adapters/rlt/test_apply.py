"""``apply_rlt`` on the models that it serves, with ToMe, and what it refuses."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from mmvitaccel import apply_eventful, apply_rlt, apply_tome
from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.core.eventful.gates.policy import TopK
from tests.adapters import hf_models
from tests.adapters.conftest import host_param, scramble, timm_vit, vivit

HOSTS = {
    "mmvitaccel ViViT": vivit,
    "transformers VideoMAE": hf_models.videomae,
}
FRAMES, PATCH = 8, 8  # of 2 frames and 8 x 8 pixels a tubelet


def build(name):
    model = scramble(vivit_of_8() if name == "mmvitaccel ViViT" else videomae_of_8())
    return model.eval()


def vivit_of_8():
    from mmvitaccel.testing import models

    return models.vivit(
        img_size=32,
        num_frames=FRAMES,
        tubelet_size=(2, PATCH, PATCH),
        embed_dim=32,
        spatial_depth=3,
        temporal_depth=1,
        num_heads=4,
    )


def videomae_of_8(**options):
    return hf_models.videomae(num_frames=FRAMES, **options)


def clips(name, batch=2, seed=1):
    """Clips in which nothing repeats, channels where the model has them."""
    x = torch.randn(batch, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(seed))
    return x if name == "mmvitaccel ViViT" else x.transpose(1, 2)


def still(name, x, steps, patch=None):
    """Clips whose ``steps`` repeat the step before them, in all or one of the 16 patches."""
    x = (x if name == "mmvitaccel ViViT" else x.transpose(1, 2)).clone()
    y, c = (
        (slice(None), slice(None))
        if patch is None
        else (
            slice(patch // 4 * PATCH, patch // 4 * PATCH + PATCH),
            slice(patch % 4 * PATCH, patch % 4 * PATCH + PATCH),
        )
    )
    for s in steps:
        x[:, :, 2 * s : 2 * s + 2, y, c] = x[:, :, 2 * s - 2 : 2 * s, y, c]
    return x if name == "mmvitaccel ViViT" else x.transpose(1, 2)


def out_of(model, x):
    with torch.no_grad():
        out = model(x)
    return out if isinstance(out, torch.Tensor) else out.last_hidden_state


@pytest.fixture(params=[host_param(name) for name in HOSTS])
def name(request):
    return request.param


def test_equal_to_the_host_where_nothing_repeats(name):
    model, x = build(name), clips(name)
    dense = out_of(model, x)
    keys = list(model.state_dict())
    handle = apply_rlt(model, threshold=0)
    assert torch.allclose(out_of(model, x), dense, atol=1e-6, rtol=0)
    assert handle.info.kept == [64, 64] and handle.info.dropped == 0
    assert list(model.state_dict()) == keys
    handle.remove()
    handle.remove()
    assert not handle.attached and not is_attached(model)
    assert torch.equal(out_of(model, still(name, x, [1])), out_of(build(name), still(name, x, [1])))


@pytest.mark.extras("hosts", "transformers")
def test_videomae_computes_the_kept_tokens_alone_and_gives_all_back():
    model, x = build("transformers VideoMAE"), still("transformers VideoMAE", clips("t"), [2, 3], 5)
    with torch.no_grad():
        embedded = model.embeddings(x, None)
        kept = [i for i in range(64) if i not in (2 * 16 + 5, 3 * 16 + 5)]
        alone = model.layernorm(model.encoder(embedded[:, kept]).last_hidden_state)
    expected = torch.empty(2, 64, 32)
    expected[:, kept] = alone
    expected[:, [2 * 16 + 5, 3 * 16 + 5]] = alone[:, [16 + 5]]
    handle = apply_rlt(model, threshold=0)
    assert torch.allclose(out_of(model, x), expected, atol=1e-6)
    assert handle.info.kept == [62, 62]
    states = model(x, output_hidden_states=True).hidden_states
    assert [s.shape for s in states] == [(2, 64, 32)] * 4


def test_vivit_encodes_each_step_from_what_is_new_in_it():
    model = build("mmvitaccel ViViT")
    x = still("mmvitaccel ViViT", still("mmvitaccel ViViT", clips("mmvitaccel ViViT"), [1], 5), [3])
    with torch.no_grad():
        tokens, grid = model.embed(x)
        positioned = model.spatial.add_positions(tokens.flatten(0, 1), grid).unflatten(0, (2, 4))
        steps = []
        for s in range(3):
            seen = [i for i in range(17) if not (s == 1 and i == 1 + 5)]
            y = positioned[:, s, seen]
            for block in model.spatial.blocks:
                y = block(y)
            steps.append(model.spatial.norm(y[:, 0]))
        expected = model.forward_temporal(torch.stack([*steps, steps[2]], 1))
    handle = apply_rlt(model, threshold=0)
    assert torch.allclose(out_of(model, x), expected, atol=1e-6)
    assert handle.info.kept == [64 - 1 - 16] * 2


def test_each_clip_of_a_batch_keeps_its_own_number(name):
    x = torch.cat(
        [
            clips(name, 1, 1),
            still(name, clips(name, 1, 2), [1, 3]),
            still(name, clips(name, 1, 3), [2], 3),
            still(name, clips(name, 1, 4), [1, 2], 7),
        ]
    )
    model = build(name)
    handle = apply_rlt(model, threshold=0)
    together = out_of(model, x)
    assert handle.info.kept == [64, 32, 63, 62]
    alone = torch.cat([out_of(model, clip[None]) for clip in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_threshold_steers_and_may_change(name):
    model, x = build(name), clips(name, 1)
    x = still(name, x, [1, 2, 3]) + 0.01 * clips(name, 1, 7)
    handle = apply_rlt(model)
    assert handle.threshold == 0.1
    out_of(model, x)
    assert handle.info.kept == [16]
    handle.threshold = 1e-3
    out_of(model, x)
    assert handle.info.kept == [64]
    with pytest.raises(ValueError, match="threshold=-1 must be a number, at least 0"):
        handle.threshold = -1


@pytest.mark.parametrize("tome_first", [True, False])
def test_together_with_tome_in_either_order(name, tome_first):
    x = still(name, clips(name), [1, 2])
    model, both = build(name), build(name)
    if name == "mmvitaccel ViViT":
        expected_of = apply_tome(model, r=2)
        steps = model.forward_spatial(x).detach()
        expected = model.forward_temporal(steps[:, [0, 0, 0, 3]])
    else:
        # ToMe alone on the 32 tokens that are kept
        with torch.no_grad():
            embedded = model.embeddings(x, None)[:, [*range(16), *range(48, 64)]]
        expected_of = apply_tome(model, r=2)
        model.embeddings.forward = lambda pixels, masked: embedded
        alone = out_of(model, x)
        expected = alone[:, [*range(16)] * 3 + [*range(16, 32)]]
    puts = [lambda: apply_tome(both, r=2), lambda: apply_rlt(both, threshold=0)]
    handles = [put() for put in (puts if tome_first else puts[::-1])]
    assert torch.allclose(out_of(both, x), expected, atol=1e-5)
    assert sum(expected_of.tokens) == sum(handles[0 if tome_first else 1].tokens)
    for handle in handles:
        handle.remove()
    assert torch.equal(out_of(both, x), out_of(build(name), x))
    assert type(both) is type(build(name))


def test_a_static_step_with_tome_has_nothing_to_merge(name):
    model, x = build(name), still(name, clips(name), [1, 2, 3])
    x = still(name, x, [1])
    apply_tome(model, r=3)
    apply_rlt(model, threshold=0)
    assert torch.isfinite(out_of(model, x)).all()


def test_copies_threads_and_training(name):
    model, x = build(name), still(name, clips(name), [1], 2)
    handle = apply_rlt(model, threshold=0)
    expected, twin = out_of(model, x), copy.deepcopy(model)
    handle.threshold = 5
    assert torch.equal(out_of(twin, x), expected)
    handle.threshold = 0
    outs = {}

    def run(number, given):
        outs[number] = [out_of(model, given) for _ in range(5)], handle.info.kept

    other = clips(name, 2, 9)
    want = [expected, out_of(model, other)]
    threads = [threading.Thread(target=run, args=(i, g)) for i, g in enumerate((x, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert all(torch.allclose(out, want[i], atol=1e-6) for out in outs[i][0])
        assert outs[i][1] == ([63, 63], [64, 64])[i]
    model.train()
    out = model(x)
    (out if isinstance(out, torch.Tensor) else out.last_hidden_state).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.extras("hosts", "transformers")
def test_tome_and_rlt_under_checkpointing_have_the_same_gradients():
    name = "transformers VideoMAE"
    x = torch.cat([clips(name, 1), still(name, clips(name, 1, 2), [1, 2, 3])])
    grads = []
    for checkpointing in (False, True):
        model = build(name)
        apply_tome(model, r=3)
        apply_rlt(model, threshold=0)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(dict(use_reentrant=False))
        model(x).last_hidden_state.square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"RLT does not support .*VisionTransformer; supported"):
        apply_rlt(timm_vit())
    with pytest.raises(ValueError, match="holds no supported vision transformer"):
        apply_rlt(nn.Linear(2, 2))
    model = build("mmvitaccel ViViT")
    with pytest.raises(ValueError, match="threshold=nan must be a number"):
        apply_rlt(model, threshold=float("nan"))
    handle = apply_rlt(model)
    with pytest.raises(RuntimeError, match="no forward pass has run yet"):
        _ = handle.info
    with pytest.raises(RuntimeError, match="RLT is already attached"):
        apply_eventful(model, TopK(4))
    with pytest.warns(UserWarning, match="threshold=0.1 and is replaced by threshold=0.2"):
        apply_rlt(model, 0.2)
    with pytest.raises(RuntimeError, match="RLT: threshold cannot be set, this handle's"):
        handle.threshold = 0.3
    assert not handle.attached
    with pytest.raises(RuntimeError, match="RLT cannot be exported"):
        torch.jit.trace(model, clips("mmvitaccel ViViT"))


@pytest.mark.extras("hosts", "transformers")
def test_a_call_that_masks_patches_itself_is_refused():
    model = videomae_of_8().eval()
    apply_rlt(model)
    x = clips("transformers VideoMAE")
    with pytest.raises(ValueError, match="was called with bool_masked_pos"):
        model(x, torch.zeros(2, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match="output_attentions"):
        model(x, output_attentions=True)
