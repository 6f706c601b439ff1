"""Blocks that merge and restore, against loops over windows and groups of tokens."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.testing.models import timesformer


def make_vitdet(**kwargs):
    size = dict(img_size=64, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    model = ViTDet(**{**size, **dict(pretrain_img_size=32), **kwargs}).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 1 + 0.2 * noise if parameter.ndim == 1 else 0.3 * noise
    return model


def tables(attn, size):
    """Relative positions by hand: row q - k + size - 1."""
    return attn.rel_pos_h.view(2 * size[0] - 1, -1), attn.rel_pos_w.view(2 * size[1] - 1, -1)


def attend_in_groups(attn, h, size, groups, proportional):
    """Tokens h (N, C) of one window (or grid) of ``size``; groups are lists of their positions."""
    q, k, v = attn.qkv(h).view(len(h), 3, attn.num_heads, -1).unbind(1)
    rows, columns = tables(attn, size)
    places = list(itertools.product(range(size[0]), range(size[1])))
    out = torch.zeros(len(h), h.shape[1], dtype=h.dtype)
    for head in range(attn.num_heads):
        mean_q, mean_k, mean_v = (
            torch.stack([t[group, head].mean(0) for group in groups]) for t in (q, k, v)
        )
        logits = attn.scale * mean_q @ mean_k.t()
        for (i, one), (j, other) in itertools.product(enumerate(groups), repeat=2):
            pairs = list(itertools.product(one, other))
            for p, s in pairs:
                down = places[p][0] - places[s][0] + size[0] - 1
                right = places[p][1] - places[s][1] + size[1] - 1
                logits[i, j] += q[p, head] @ (rows[down] + columns[right]) / len(pairs)
            if proportional:
                logits[i, j] += torch.tensor(float(len(other))).log()
        result = logits.softmax(1) @ mean_v
        width = mean_v.shape[1]
        for group, value in zip(groups, result):
            out[group, head * width : (head + 1) * width] = value
    return out


def groups_of(source):
    return [row.nonzero().flatten().tolist() for row in source]


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("r", [1, 6])
@pytest.mark.parametrize("window_size", [0, 3])
def test_one_block_of_vitdet(window_size, r, proportional):
    """A map of 4 x 5 tokens, in windows of 3 padded to 6 x 6, or global."""
    model = make_vitdet(
        window_size=window_size, window_block_indexes=(0,) if window_size else (), img_size=40
    )
    block = model.blocks[0]
    if not window_size:  # tables of the very grid, so that nothing is interpolated
        height, width = (nn.Parameter(torch.randn(2 * n - 1, 8).double()) for n in (4, 5))
        block.attn.rel_pos_h, block.attn.rel_pos_w = height, width
    x = torch.randn(1, 4, 5, 16, generator=torch.Generator().manual_seed(1)).double()
    handle = apply_tome(model, r, trace_source=True, proportional_attention=proportional)
    caught = {}
    hook = block.register_forward_hook(lambda m, given, out: caught.update(given=given[0], out=out))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(2)).double())
    hook.remove()
    sources = handle.info.sources[0]
    x = caught["given"][0]

    side = window_size or None
    padded = torch.zeros(6, 6, 16).double() if side else torch.zeros(4, 5, 16).double()
    with torch.no_grad():
        padded[:4, :5] = block.norm1(x)
        branch, branch2 = torch.zeros_like(padded), torch.zeros_like(padded)
        corners = [(0, 0), (0, 3), (3, 0), (3, 3)] if side else [(0, 0)]
        height, width = (side, side) if side else (4, 5)
        assert len(sources) == len(corners)
        for (top, left), source in zip(corners, sources):
            cut = (slice(top, top + height), slice(left, left + width))
            groups = groups_of(source)
            assert len(groups) == height * width - min(r, height * width // 2)
            out = attend_in_groups(
                block.attn, padded[cut].flatten(0, 1), (height, width), groups, proportional
            )
            branch[cut] = block.attn.proj(out).view(height, width, 16)
        x = x + branch[:4, :5]
        merged = sum(source.shape[0] for source in sources)
        whole = torch.zeros_like(padded)
        whole[:4, :5] = x
        for (top, left), source in zip(corners, sources):
            cut = (slice(top, top + height), slice(left, left + width))
            tokens = whole[cut].flatten(0, 1).clone()
            for group in groups_of(source):
                tokens[group] = tokens[group].mean(0)
            branch2[cut] = block.mlp(block.norm2(tokens)).view(height, width, 16)
        # where padding outweighs what merging saves, the MLP takes the tokens as they are
        x = x + (branch2[:4, :5] if merged < 20 else block.mlp(block.norm2(x)))
    torch.testing.assert_close(caught["out"][0], x, atol=1e-6, rtol=1e-6)


def test_windows_merge_the_same_number_and_the_map_keeps_its_shape():
    model = make_vitdet(depth=3, window_size=3, window_block_indexes=(0, 2)).float()
    handle = apply_tome(model, 0.25)
    image = torch.randn(2, 3, 40, 56)
    (out,) = model(image)
    assert out.shape == (2, 16, 5, 7)
    # 5 x 7 tokens in windows of 3 x 3: 2 x 3 windows of 9 an image, and a global block between
    assert handle.info.tokens == [7, 27, 7]
    assert [len(size) for size in handle.info.sizes] == [12, 2, 12]
    for size, tokens in zip(handle.info.sizes, (9, 35, 9)):
        assert torch.equal(size.sum(dim=1), torch.full_like(size[:, 0], tokens))


def make_timesformer():
    pytest.importorskip("mmaction")
    return timesformer(
        num_frames=2,
        img_size=32,
        patch_size=8,
        embed_dims=16,
        num_heads=2,
        num_transformer_layers=1,
    )


def test_blocks_that_restore_do_not_prune():
    with pytest.raises(ValueError, match="mmaction2 TimeSformer needs all of them behind each blo"):
        apply_tome(make_timesformer(), 2, reduction="prune")


def test_timesformer_restores_every_token():
    model = make_timesformer().double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    handle = apply_tome(model, 5, trace_source=True)
    spatial = model.transformer_layers.layers[0].attentions[1]
    query = torch.randn(1, 1 + 16 * 2, 16).double()
    caught = {}
    hook = spatial.register_forward_hook(lambda m, given, out: caught.update(x=given[0], out=out))
    with torch.no_grad():
        model(torch.randn(1, 3, 2, 32, 32).double())
    hook.remove()
    query, sources = caught["x"], handle.info.sources[0]
    assert sources.shape == (2, 12, 17)
    attn, expected = spatial.attn, query.clone()
    with torch.no_grad():
        for frame, source in enumerate(sources):
            tokens = torch.cat([query[0, :1], query[0, 1 + frame :: 2]])  # class, then patches
            h = spatial.norm(tokens)
            share = source.double() / source.sum(1, keepdim=True)
            qkv = h @ attn.in_proj_weight.t() + attn.in_proj_bias
            q, k, v = (share @ qkv).view(12, 3, 2, 8).permute(1, 2, 0, 3)
            logits = q @ k.transpose(1, 2) / 8**0.5 + source.sum(1).double().log()
            out = (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)
            branch = source.double().t() @ attn.out_proj(out)
            expected[0, 0] += branch[0] / 2
            expected[0, 1 + frame :: 2] += branch[1:]
    torch.testing.assert_close(caught["out"], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("window_size", [0, 2])
@pytest.mark.parametrize("proportional", [True, False])
def test_a_run_merges_once_and_restores_once(window_size, proportional):
    """Three blocks on a map of 4 x 4 tokens: the first one's groups hold for all."""
    windows = (0, 1, 2) if window_size else ()
    model = make_vitdet(window_size=window_size, window_block_indexes=windows, img_size=32, depth=3)
    handle = apply_tome(
        model, [3, 0, 5] if not window_size else 1, restore="end", trace_source=True,
        proportional_attention=proportional,
    )  # fmt: skip
    seen = []
    hooks = [b.register_forward_hook(lambda m, i, o: seen.append((i[0], o))) for b in model.blocks]
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double())
    for hook in hooks:
        hook.remove()
    side = window_size or 4
    first = [(0, 0), (0, 2), (2, 0), (2, 2)] if window_size else [(0, 0)]
    sources = handle.info.sources
    assert all(torch.equal(source, sources[0]) for source in sources)
    with torch.no_grad():
        for block, (x, out) in zip(model.blocks[1:], seen[1:]):
            expected = torch.empty_like(x)
            for (top, left), source in zip(first, sources[0]):
                at = (0, slice(top, top + side), slice(left, left + side))
                tokens, groups = x[at].flatten(0, 1), groups_of(source)
                assert any(len(group) > 1 for group in groups)
                alike = torch.empty_like(tokens)  # each token as its group
                for group in groups:
                    alike[group] = tokens[group].mean(0)
                h, size = block.norm1(alike), (side, side)
                if not window_size:
                    rows = block.attn.position_rows(size)
                    assert rows is not None
                y = alike + block.attn.proj(
                    attend_in_groups(block.attn, h, size, groups, proportional)
                )
                y = y + block.mlp(block.norm2(y))
                expected[at] = (tokens + y - alike).unflatten(0, size)
            assert torch.allclose(out, expected, atol=1e-9)


def test_a_run_equals_single_blocks_where_nothing_merges():
    outs = []
    for restore in ("block", "end"):
        model = make_vitdet(window_size=2, window_block_indexes=(0, 1), img_size=32, depth=3)
        apply_tome(model, 0, restore=restore)
        with torch.no_grad():
            outs.append(model(torch.ones(2, 3, 32, 32).double())[0])
    assert torch.equal(*outs)


def test_a_run_costs_less_and_has_gradients():
    from mmvitaccel.core.macs.counter import count_macs

    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()
    costs, grads = {}, {}
    for restore, with_cp in (("block", False), ("end", False), ("end", True)):
        model = make_vitdet(
            window_size=2, window_block_indexes=(0, 1, 2), img_size=32, depth=3, with_cp=with_cp
        )
        apply_tome(model, 2, restore=restore)
        costs[restore] = count_macs(model, x).total
        model.train()
        sum(level.square().mean() for level in model(x)).backward()
        grads[restore, with_cp] = [p.grad for p in model.parameters() if p.grad is not None]
    assert costs["end"] < costs["block"]
    plain, again = grads["end", False], grads["end", True]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(plain, again))


def test_what_has_no_runs_or_pads_its_windows_is_refused():
    from tests.adapters.conftest import timm_vit

    with pytest.raises(ValueError, match="this timm VisionTransformer has none; use restore='bl"):
        apply_tome(timm_vit(), 2, restore="end")
    with pytest.raises(ValueError, match="restore='never' must be one of block, end"):
        apply_tome(timm_vit(), 2, restore="never")
    model = make_vitdet(window_size=3, window_block_indexes=(0, 1), img_size=32, depth=2)
    apply_tome(model, 2, restore="end")
    with torch.no_grad(), pytest.raises(ValueError, match="a map of 4 x 4 is padded in each"):
        model(torch.ones(1, 3, 32, 32).double())
