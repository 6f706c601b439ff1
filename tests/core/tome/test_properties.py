"""What holds for any tokens and any r: drawn by hypothesis."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmvitaccel.core.tome.merge import (
    bipartite_soft_matching,
    max_r,
    merge_weighted,
    owner,
    source_of,
    unmerge,
)


@st.composite
def sequences(draw):
    """Tokens (B, N, C), their sizes, and numbers of prefix tokens and of tokens to merge."""
    prefix = draw(st.integers(0, 5))
    num_tokens = prefix + draw(st.integers(2, 60))
    shape = (draw(st.integers(1, 3)), num_tokens, draw(st.integers(1, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(
        st.sampled_from((1e-3, 1.0, 1e4))
    )
    if draw(st.booleans()):  # many equal tokens: ties, and zeros as padding has them
        x = x.sign() * (torch.rand(x.shape[:2], generator=generator) < 0.7)[..., None]
    size = torch.randint(1, 200, (*shape[:2], 1), generator=generator).double()
    r = draw(st.lists(st.integers(1, max_r(num_tokens, prefix)), min_size=1, max_size=4))
    return x, size, prefix, r


@given(sequences(), st.sampled_from(("cosine", "dot")))
def test_merging_and_unmerging_keep_the_size_weighted_sum(sequence, similarity):
    x, size, prefix, schedule = sequence
    total, first = (x * size).sum(1), x
    where = torch.arange(x.shape[1]).expand(x.shape[:2])
    matchings = []
    for wanted in schedule:
        r = min(wanted, max_r(x.shape[1], prefix))
        if r == 0:
            break
        matching = bipartite_soft_matching(x, r, prefix, similarity)
        x, size = merge_weighted(x, size, matching)
        matchings.append(matching)
        where = owner(matching).gather(1, where)
        scale = total.abs().max() + (x.abs() * size).sum(1).max()
        torch.testing.assert_close((x * size).sum(1), total, rtol=0, atol=1e-12 * scale.item())
        assert torch.equal(x[:, :prefix], first[:, :prefix])
    source = source_of(where, x.shape[1])
    assert torch.equal(source.sum(1), torch.ones_like(source[:, 0], dtype=torch.int64))

    whole = x
    for matching in reversed(matchings):
        whole = unmerge(whole, matching)
    assert whole.shape == first.shape
    # Every token of before has the value of the one it went into, whose size is theirs together.
    assert torch.equal(whole, x.gather(1, where[..., None].expand(-1, -1, x.shape[2])))


@given(sequences())
def test_unmerged_sizes_of_single_patches_give_the_sum_back(sequence):
    x, _, prefix, (r, *_) = sequence
    matching = bipartite_soft_matching(x, r, prefix)
    merged, size = merge_weighted(x, torch.ones_like(x[..., :1]), matching)
    tolerance = 1e-12 * x.abs().sum().item()
    torch.testing.assert_close(unmerge(merged, matching).sum(1), x.sum(1), rtol=0, atol=tolerance)
    assert torch.equal(
        unmerge(size, matching).reciprocal().sum(1).round(),
        size.new_full((len(x), 1), merged.shape[1]),
    )
