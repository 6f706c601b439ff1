"""ToMe's algorithm against a slow one that follows the paper token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmvitaccel.core.tome.merge import (
    bipartite_soft_matching,
    log_size,
    max_r,
    merge,
    merge_weighted,
    owner,
    prune_matching,
    source_of,
    unmerge,
)


def slow_edges(metric, prefix, similarity):
    """For each unprotected token at an even position, its similarity to all at odd ones."""
    edges = {}
    for i in range(prefix, len(metric)):
        for j in range(prefix, len(metric)):
            if i % 2 == 0 and j % 2 == 1:
                a, b = metric[i].double(), metric[j].double()
                norm = (a.norm() * b.norm()).item() if similarity == "cosine" else 1.0
                edges.setdefault(i, {})[j] = (a @ b).item() / norm if norm else 0.0
    return edges


def slow_merge(x, size, metric, r, prefix, similarity="cosine"):
    """One image by the paper: (source, destination) pairs, then groups averaged by size."""
    edges = slow_edges(metric, prefix, similarity)
    best = {i: max(row, key=row.get) for i, row in edges.items()}
    ranked = sorted(best, key=lambda i: -edges[i][best[i]])
    pairs = {i: best[i] for i in ranked[:r]}
    groups = {j: [j] for j in range(len(x)) if j not in pairs}
    for i, j in pairs.items():
        groups[j].append(i)
    tokens = {}
    for members in groups.values():
        total = sum(size[m].item() for m in members)
        value = sum(x[m] * size[m].item() for m in members) / total
        tokens[frozenset(members)] = (value, total)
    return tokens


def groups_of(matching, index):
    where = owner(matching)[index]
    places = range(matching.kept.shape[1])
    return {n: frozenset((where == n).nonzero().flatten().tolist()) for n in places}


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("num_tokens", [16, 17])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_merge_equals_the_paper(num_tokens, prefix, similarity):
    generator = torch.Generator().manual_seed(num_tokens + prefix)
    x = torch.randn(3, num_tokens, 6, generator=generator)
    metric = torch.randn(3, num_tokens, 4, generator=generator)
    size = torch.randint(1, 9, (3, num_tokens, 1), generator=generator).float()
    for r in range(1, max_r(num_tokens, prefix) + 1):
        matching = bipartite_soft_matching(metric, r, prefix, similarity)
        merged, new_size = merge_weighted(x, size, matching)
        assert merged.shape == (3, num_tokens - r, 6)
        for index in range(3):
            expected = slow_merge(x[index], size[index], metric[index], r, prefix, similarity)
            groups = groups_of(matching, index)
            assert set(groups.values()) == set(expected)
            for place, members in groups.items():
                value, total = expected[members]
                torch.testing.assert_close(merged[index, place], value)
                assert new_size[index, place].item() == total


def adversarial(name):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 12, 4, generator=generator)
    if name == "all equal":
        return base[:, :1].expand(2, 12, 4).contiguous()
    if name == "equal pairs":
        return base[:, ::2].repeat_interleave(2, dim=1)
    if name == "opposite":
        return base[:, :1] * torch.tensor([1.0, -1.0]).repeat(6)[None, :, None]
    if name == "zeros":
        return torch.zeros(2, 12, 4)
    base[:, 5:] = 0  # "padded"
    return base


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("name", ["all equal", "equal pairs", "opposite", "zeros", "padded"])
def test_ties_take_best_edges(name, prefix):
    """Where similarities tie, any choice is the paper's as long as no better edge was left."""
    metric = adversarial(name)
    for r in range(1, max_r(12, prefix) + 1):
        matching = bipartite_soft_matching(metric, r, prefix)
        for index in range(2):
            edges = slow_edges(metric[index], prefix, "cosine")
            best = sorted((max(row.values()) for row in edges.values()), reverse=True)
            kept = matching.kept[index].tolist()
            taken = [
                edges[src][kept[dst]]
                for src, dst in zip(matching.src[index].tolist(), matching.dst[index].tolist())
            ]
            torch.testing.assert_close(torch.tensor(taken), torch.tensor(best[:r]))
            assert sorted(kept + matching.src[index].tolist()) == list(range(12))
        x, size = merge_weighted(metric, torch.ones(2, 12, 1), matching)
        assert torch.isfinite(x).all()
        assert size.sum(1).flatten().tolist() == [12.0, 12.0]


def test_ties_merge_in_order_of_position():
    matching = bipartite_soft_matching(torch.ones(1, 9, 2), 2, num_prefix_tokens=1)
    assert matching.src.tolist() == [[2, 4]]
    assert matching.kept.tolist() == [[0, 6, 8, 1, 3, 5, 7]]
    assert matching.dst.tolist() == [[3, 3]]


@pytest.mark.parametrize("prefix", [0, 1, 2, 3, 5])
def test_prefix_tokens_stay_in_front_untouched(prefix):
    x = torch.randn(2, prefix + 11, 3, generator=torch.Generator().manual_seed(prefix))
    size = torch.ones(2, prefix + 11, 1)
    matching = bipartite_soft_matching(x, max_r(prefix + 11, prefix), prefix)
    merged, new_size = merge_weighted(x, size, matching)
    assert torch.equal(merged[:, :prefix], x[:, :prefix])
    assert torch.equal(new_size[:, :prefix], size[:, :prefix])
    assert torch.equal(unmerge(merged, matching)[:, :prefix], x[:, :prefix])


@pytest.mark.parametrize("num_tokens", range(1, 8))
def test_max_r_is_what_matching_can_do(num_tokens):
    for prefix in range(num_tokens + 2):
        r = max_r(num_tokens, prefix)
        assert r == max(num_tokens - prefix, 0) // 2
        x = torch.randn(1, num_tokens, 2)
        if r > 0:
            assert bipartite_soft_matching(x, r, prefix).src.shape == (1, r)
        with pytest.raises(ValueError, match=f"r={r + 1}: of {num_tokens} tokens, {prefix} prot"):
            bipartite_soft_matching(x, r + 1, prefix)


def test_unmerge_gives_each_token_its_destinations_value():
    x = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(1))
    matching = bipartite_soft_matching(x, 4)
    merged, _ = merge_weighted(x, torch.ones(2, 10, 1), matching)
    back = unmerge(merged, matching)
    for index in range(2):
        for place, members in groups_of(matching, index).items():
            for member in members:
                assert torch.equal(back[index, member], merged[index, place])


def test_merge_is_the_sum_and_sources_say_of_what():
    x = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matching = bipartite_soft_matching(x, 4)
    source = source_of(owner(matching), 6)
    assert source.shape == (2, 6, 10)
    torch.testing.assert_close(merge(x, matching), source.double() @ x)


def test_gradients_reach_every_token_by_its_share():
    x = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    size = torch.tensor([3.0, 1, 1, 2, 1, 1, 4, 1]).view(1, 8, 1).expand(2, 8, 1)
    matching = bipartite_soft_matching(x, 3, num_prefix_tokens=1)
    assert torch.autograd.gradcheck(lambda y: merge_weighted(y, size, matching)[0], (x,))
    assert torch.autograd.gradcheck(
        lambda y: unmerge(y, matching), (x[:, :5].detach().requires_grad_(),)
    )


def test_half_precision_matches_as_float32_does_and_does_not_overflow():
    x = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(3))
    half = x.half()
    ours = bipartite_soft_matching(half, 20)
    full = bipartite_soft_matching(half.float(), 20)
    assert all(torch.equal(a, b) for a, b in zip(ours[:3], full[:3]))
    with torch.autocast("cpu", torch.bfloat16):
        cast = bipartite_soft_matching(half.float(), 20)
    assert all(torch.equal(a, b) for a, b in zip(cast[:3], full[:3]))
    big = torch.full((1, 64, 2), 60000.0, dtype=torch.float16)
    merged, _ = merge_weighted(big, torch.full((1, 64, 1), 100.0), ours)
    assert merged.dtype == torch.float16
    assert torch.isfinite(merged).all()


def test_proportional_attention_equals_repeated_keys():
    """A key of size s with the mask weighs as s equal keys (eq. 1)."""
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 2, 5, 8, generator=generator, dtype=torch.float64) for _ in "qkv")
    size = torch.tensor([1, 3, 2, 1, 4])
    mask = log_size(size.view(1, 5, 1)).double()
    repeated_k, repeated_v = (t.repeat_interleave(size, dim=2) for t in (k, v))
    expected = F.scaled_dot_product_attention(q, repeated_k, repeated_v)
    ours = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


def test_pruning_drops_the_least_important_and_keeps_order():
    importance = torch.tensor([[0.0, 0.3, 0.1, 0.4, 0.2, 0.5]])
    matching = prune_matching(importance, 2, num_prefix_tokens=1)
    assert matching.kept.tolist() == [[0, 1, 3, 5]]
    assert matching.src.tolist() == [[2, 4]]
    x = torch.arange(6.0).view(1, 6, 1)
    assert unmerge(x[:, matching.kept[0]], matching).flatten().tolist() == [0, 1, 0, 3, 0, 5]
