"""ToMe in ViViT's spatial encoder."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.models.vivit.backbone import ViViT

TOKENS, DIM, STEPS, DEPTH = 17, 24, 4, 3


def make(**options) -> ViViT:
    torch.manual_seed(0)
    size = dict(img_size=32, num_frames=8, tubelet_size=(2, 8, 8), embed_dim=DIM, num_heads=3)
    model = ViViT(**size, spatial_depth=DEPTH, temporal_depth=2, **options)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model.eval()


def clips(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))


def test_nothing_merged_is_the_dense_model():
    model, x = make(), clips()
    expected = model(x)
    handle = apply_tome(model, 0)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    handle.r = 4
    assert not torch.allclose(model(x), expected, atol=1e-3)
    assert handle.info.tokens == [13, 9, 5]
    handle.remove()
    assert type(model) is ViViT
    assert torch.equal(model(x), expected)


def test_a_clip_is_encoded_alike_in_any_batch():
    model, x = make(), clips(3)
    apply_tome(model, 4)
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), alone, rtol=1e-5, atol=1e-5)


def merged_encoder(model: ViViT, tokens: torch.Tensor, r: int) -> torch.Tensor:
    """One step's tokens (N, C) through the spatial encoder with merging, token by token."""
    spatial = model.spatial
    x = spatial.add_positions(tokens[None], spatial.grid_size)[0]
    size = torch.ones(len(x))
    for block in spatial.blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).reshape(len(x), 3, 3, -1).permute(1, 2, 0, 3)
        logits = q @ k.transpose(1, 2) * block.attn.scale + size.log()
        out = (logits.softmax(-1) @ v).transpose(0, 1).reshape(len(x), DIM)
        x = x + block.attn.proj(out)
        metric = torch.nn.functional.normalize(k.mean(0), dim=-1)
        sources = [i for i in range(0, len(x), 2) if i != 0]
        best = {
            i: max(range(1, len(x), 2), key=lambda j, i=i: float(metric[i] @ metric[j]))
            for i in sources
        }
        gone = sorted(sources, key=lambda i: -float(metric[i] @ metric[best[i]]))[:r]
        total, count = x * size[:, None], size.clone()
        for i in gone:
            total[best[i]] += x[i] * size[i]
            count[best[i]] += size[i]
        kept = [i for i in range(len(x)) if i not in gone]
        # The next block pairs tokens by place: unmerged sources come first, as published.
        kept = [i for i in kept if i % 2 == 0] + [i for i in kept if i % 2]
        x, size = (total / count[:, None])[kept], count[kept]
        x = x + block.mlp(block.norm2(x))
    return spatial.norm(x[0])


def test_one_merging_block_against_merging_token_by_token():
    model, x = make(), clips(1)
    model.spatial.blocks = model.spatial.blocks[:1]
    tokens, _ = model.embed(x)
    expected = torch.stack([merged_encoder(model, step, 4) for step in tokens[0]])
    apply_tome(model, 4)
    torch.testing.assert_close(model.forward_spatial(x)[0], expected, rtol=0, atol=1e-5)


def test_multiply_adds_by_hand():
    model, r = make(), 4
    apply_tome(model, r)
    parts = count_macs(model, clips(1)).parts()
    spatial = 0
    for index in range(DEPTH):
        n = TOKENS - r * index
        spatial += 4 * n * DIM**2 + 2 * n**2 * DIM  # attention on the tokens that came in
        spatial += 8 * (n - r) * DIM**2  # MLP on those that are left
        sources, destinations = (n + 1) // 2 - 1, n // 2  # the class token is no source
        spatial += sources * destinations * (DIM // 3)  # similarities
    assert parts["spatial"] == STEPS * spatial


def test_training_with_recomputed_blocks():
    x, gradients = clips(), []
    for with_cp in (False, True):
        model = make(with_cp=with_cp).train()
        apply_tome(model, 4)
        model(x).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().min() >= 0 and gradients[0].norm() > 0


@pytest.mark.parametrize("r", [0.25, [4, 0, 4], (4, -1.0)])
def test_other_schedules(r):
    model, x = make(), clips(1)
    handle = apply_tome(model, r)
    assert torch.isfinite(model(x)).all()
    assert handle.info.tokens[-1] < TOKENS
