"""What chooses the tokens that merge, and how it is named."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmvitaccel.core.tome.controls import RandomDrop, RandomMatching
from mmvitaccel.core.tome.grid import Grid
from mmvitaccel.core.tome.matcher import Bipartite, Candidates, match
from mmvitaccel.core.tome.matchings import MATCHINGS, build_matching, register_matching
from mmvitaccel.core.tome.merge import (
    Matching,
    bipartite_soft_matching,
    max_r,
    merge_weighted,
    owner,
    unmerge,
)
from mmvitaccel.core.tome.threshold import Threshold
from mmvitaccel.core.tome.trace import Standing


def candidates(shape=(2, 17, 6), r=4, prefix=1, grid_size=(4, 4), seed=0):
    metric = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Candidates(metric, torch.ones(*shape[:2], 1), r, prefix, grid_size)


def same(first: Matching, second: Matching) -> bool:
    tensors = zip(first[:3], second[:3])
    return first[3:5] == second[3:5] and all(torch.equal(a, b) for a, b in tensors)


@st.composite
def tokens_on_grids(draw):
    """Tokens on a grid behind a prefix, wanted numbers to merge, and a matching."""
    prefix, grid = draw(st.integers(0, 3)), draw(st.tuples(*[st.integers(1, 7)] * 3))
    grid = grid if draw(st.booleans()) else grid[1:]
    num_tokens = prefix + torch.Size(grid).numel()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    x = torch.randn(draw(st.integers(1, 3)), num_tokens, 4, generator=generator).double()
    if draw(st.booleans()):
        x = x.sign()
    r = draw(st.lists(st.integers(1, num_tokens), min_size=1, max_size=4))
    matchers = (Bipartite(), Bipartite("dot"), RandomMatching(), Threshold(0.3), Grid(grid))
    return x, prefix, r, draw(st.sampled_from(matchers))


@given(tokens_on_grids())
def test_merging_and_unmerging_keep_the_size_weighted_sum(drawn):
    x, prefix, schedule, matcher = drawn
    first, standing = x, Standing(torch.ones_like(x[..., :1]))
    for wanted in schedule:
        r = min(wanted, max_r(x.shape[1], prefix))
        if r == 0:
            break
        given = Candidates(x, standing.size, r, prefix, standing.grid_size)
        matching = match(matcher, given)
        if matching is None:
            continue
        x, size = merge_weighted(x, standing.size, matching)
        standing = standing.merged(matching, size)
    assert torch.isfinite(x).all()
    tolerance = 1e-12 * first.abs().sum().item()
    torch.testing.assert_close((x * standing.size).sum(1), first.sum(1), rtol=0, atol=tolerance)
    # every token of the input is in one that is left, and that one's size is their number
    counted = torch.zeros_like(standing.size).scatter_add_(
        1, standing.owners()[..., None], torch.ones_like(first[..., :1])
    )
    assert torch.equal(counted, standing.size)
    whole = standing.all_tokens(x)
    torch.testing.assert_close(whole.sum(1), first.sum(1), rtol=0, atol=tolerance)
    assert torch.equal(whole[:, :prefix], first[:, :prefix])


def test_bipartite_is_the_functions():
    given = candidates()
    for similarity in ("cosine", "dot"):
        expected = bipartite_soft_matching(given.metric, 4, 1, similarity)
        assert same(match(Bipartite(similarity), given), expected)
    assert same(match(Bipartite(), given), bipartite_soft_matching(given.metric, 4, 1))


def test_a_threshold_that_all_reach_is_bipartite():
    given = candidates()
    assert same(match(Threshold(-1), given), match(Bipartite(), given))
    assert match(Threshold(1), given) is None


def test_threshold_merges_what_reaches_it_and_r_at_most():
    given = candidates(shape=(5, 41, 3), r=20, grid_size=None)
    matching = match(Threshold(0.8), given)
    metric = given.metric / given.metric.norm(dim=-1, keepdim=True)
    best = (metric[:, 2::2] @ metric[:, 1::2].transpose(1, 2)).max(-1).values
    expected = (best >= 0.8).sum(1)
    assert len(expected.unique()) > 1  # so that the images differ
    assert torch.equal(matching.live.sum(1), expected)
    assert matching.kept.shape[1] == 41 - expected.min()
    capped = match(Threshold(0.8), given._replace(r=3))
    assert capped.live is None
    assert capped.src.shape == (5, 3)


def test_threshold_merges_an_image_in_a_batch_as_alone():
    """Three rounds, in which the images differ and places hold nothing."""
    given = candidates(shape=(4, 38, 3), r=18, prefix=2)
    together, standing = given.metric, Standing(given.size)
    alone = [(image[None], Standing(given.size[:1])) for image in given.metric]
    for similarity in (0.9, 0.7, 0.5):
        matcher = Threshold(similarity)

        def step(x, standing, matcher=matcher):
            found = match(matcher, Candidates(x, standing.size, 18, 2))
            if found is None:
                return x, standing
            x, size = merge_weighted(x, standing.size, found)
            return x, standing.merged(found, size)

        together, standing = step(together, standing)
        alone = [step(*image) for image in alone]
        lengths = {x.shape[1] for x, _ in alone}
        assert len(lengths) > 1
        assert together.shape[1] == max(lengths)
        for index, (x, own) in enumerate(alone):
            length = x.shape[1]
            torch.testing.assert_close(together[index, :length], x[0])
            assert torch.equal(standing.size[index, :length], own.size[0])
            assert not standing.size[index, length:].any()
            assert torch.equal(standing.owner[index], own.owners()[0])


def test_threshold_keeps_the_order_of_an_image_that_merges_nothing():
    equal, orthogonal = torch.ones(5, 5), torch.eye(5)
    given = Candidates(torch.stack([orthogonal, equal]), torch.ones(2, 5, 1), 2, 0)
    found = match(Threshold(0.5), given)
    assert found.live.sum(1).tolist() == [0, 2]
    merged, size = merge_weighted(given.metric, given.size, found)
    assert torch.equal(merged[0], orthogonal) and size[1].sum() == 5


def test_threshold_merges_at_most_half_of_the_tokens():
    given = candidates(shape=(2, 7, 3), r=20, prefix=0)  # of which set A has 4
    assert match(Threshold(-1), given).src.shape == (2, 3)


def test_threshold_out_of_range():
    with pytest.raises(ValueError, match=r"Threshold: similarity=1\.5 must be within \[-1, 1\]"):
        Threshold(1.5)


def test_grid_merges_neighbours_and_the_same_number_in_each_line():
    given = candidates(shape=(2, 1 + 30, 4), r=10, grid_size=(5, 6))
    matching = match(Grid(), given)
    assert matching.grid_size == (5, 4)
    where = owner(matching)
    assert torch.equal(where[:, 0], torch.zeros(2, dtype=torch.int64))
    for image in where[:, 1:].view(2, 5, 6) - 1:
        for number, line in enumerate(image):
            # in order, so that what merged are neighbours, and each line keeps its places
            assert line.unique().tolist() == list(range(4 * number, 4 * number + 4))
            assert torch.equal(line.sort().values, line)


def slow_line(line, count):
    """Pairs of one line by loops: the best edges of even places to a neighbour."""
    edges = []
    for place in range(0, len(line), 2):
        near = [n for n in (place - 1, place + 1) if 0 <= n < len(line)]
        scores = [torch.cosine_similarity(line[place], line[n], dim=0).item() for n in near]
        edges.append((max(scores), place, near[scores.index(max(scores))]))
    edges.sort(key=lambda edge: -edge[0])
    return {(place, near) for _, place, near in edges[:count]}


@pytest.mark.parametrize("grid_size", [(4, 7), (7, 4), (2, 3, 6), (2, 5, 3)])
def test_grid_takes_the_best_pairs(grid_size):
    given = candidates(shape=(2, 2 + torch.Size(grid_size).numel(), 3), prefix=2, r=8)
    given = given._replace(grid_size=grid_size)
    matching = match(Grid(), given)
    frames = torch.arange(2, given.metric.shape[1]).view(-1, *grid_size[-2:])
    down = grid_size[-2] > grid_size[-1]
    lines = (frames.transpose(1, 2) if down else frames).flatten(0, 1)
    count = round(8 / len(lines))
    for index, metric in enumerate(given.metric):
        expected = set()
        for line in lines:
            pairs = slow_line(metric[line], count)
            expected |= {(line[a].item(), line[b].item()) for a, b in pairs}
        into = matching.kept[index, matching.dst[index]]
        assert set(zip(matching.src[index].tolist(), into.tolist())) == expected


def test_grid_goes_on_with_the_grid_that_is_left():
    given = candidates(shape=(1, 16, 4), r=4, prefix=0)
    x, standing, seen = given.metric, Standing(given.size, grid_size=(4, 4)), []
    for _ in range(3):
        found = match(Grid(), Candidates(x, standing.size, 4, 0, standing.grid_size))
        x, size = merge_weighted(x, standing.size, found)
        standing = standing.merged(found, size)
        seen.append(standing.grid_size)
    assert seen == [(4, 3), (3, 3), (3, 2)]


def test_grid_merges_at_most_half_of_each_line():
    given = candidates(shape=(2, 10, 6), r=6, grid_size=(3, 3))
    assert match(Grid(), given).src.shape == (2, 3)  # one of each line of three


def test_grid_without_a_grid_or_with_another():
    with pytest.raises(ValueError, match="does not provide its token grid; give the grid at th"):
        match(Grid(), candidates(grid_size=None))
    with pytest.raises(
        ValueError, match=r"grid_size=\(3, 5\) has 15 positions, but there are 16 tokens"
    ):
        match(Grid((3, 5)), candidates(grid_size=None))
    assert match(Grid(), candidates(r=1)) is None  # rounds to none of a line


def test_controls_draw_any_tokens_behind_the_prefix_and_repeat_with_a_seed():
    given = candidates(shape=(400, 11, 2), r=3, prefix=2, grid_size=None)
    for matcher in (RandomMatching(), RandomDrop()):
        torch.manual_seed(1)
        matching = match(matcher, given)
        torch.manual_seed(1)
        assert same(matching, match(matcher, given))
        assert not same(matching, match(matcher, given))
        assert torch.equal(matching.kept[:, :2], torch.arange(2).expand(400, 2))
        counts = matching.src.flatten().bincount(minlength=11)
        # 400 draws of 3 in 9: 133 each, with a standard deviation below 10
        assert counts[:2].tolist() == [0, 0]
        assert counts[2:].min() > 133 - 50
        assert matching.dst.min() >= 2


def test_a_drop_keeps_the_others_as_they_are_and_fills_from_before():
    given = candidates(shape=(2, 9, 3), r=4, prefix=1, grid_size=None)
    matching = match(RandomDrop(), given)
    left, size = merge_weighted(given.metric, given.size, matching)
    for index in range(2):
        kept = matching.kept[index].tolist()
        assert kept == sorted(kept)
        assert torch.equal(left[index], given.metric[index, kept])
        for place, row in enumerate(unmerge(left, matching)[index]):
            before = [n for n in kept[1:] if n <= place] or kept[1:2]
            assert torch.equal(row, given.metric[index, before[-1] if place else 0])
    assert torch.equal(size, torch.ones(2, 5, 1))


class Neighbours:
    """One's own: the first r odd tokens go into those before them."""

    def match(self, given):
        n, r = given.metric.shape[1], given.r
        src = 1 + 2 * torch.arange(r)
        kept = torch.tensor([i for i in range(n) if i not in src.tolist()])
        batch = len(given.metric)
        return Matching(
            kept.expand(batch, -1), src.expand(batch, -1), torch.arange(r).repeat(batch, 1)
        )


def test_ones_own_class_by_name_by_class_and_as_an_object():
    try:
        register_matching(Neighbours)
        register_matching(Neighbours)
        assert isinstance(build_matching(dict(type="Neighbours")), Neighbours)

        class Other:
            match = Neighbours.match

        Other.__name__ = "Neighbours"
        with pytest.raises(ValueError, match="a matching named 'Neighbours' already exists"):
            register_matching(Other)
    finally:
        del MATCHINGS["Neighbours"]
    assert isinstance(build_matching(dict(type=Neighbours)), Neighbours)
    own = Neighbours()
    assert build_matching(own) is own
    assert match(own, candidates(prefix=0)).src.tolist() == [[1, 3, 5, 7]] * 2


def test_names_and_arguments_of_configs():
    assert sorted(MATCHINGS) == ["Bipartite", "Grid", "RandomDrop", "RandomMatching", "Threshold"]
    built = build_matching(dict(type="mmvitaccel.Threshold", similarity=0.5))
    assert repr(built) == "Threshold(similarity=0.5)"
    with pytest.raises(ValueError, match=r"matching=\{'similarity': 1\} has no registered type"):
        build_matching(dict(similarity=1))
    with pytest.raises(
        TypeError, match="Neighbours cannot be a matching: it has no method 'match'"
    ):
        register_matching(type("Neighbours", (), {}))


def test_a_matching_that_loses_tokens_is_named():
    class Loses:
        def match(self, given):
            at = torch.arange(4).expand(2, 4)
            return Matching(at, at + 4, at)

    with pytest.raises(
        ValueError, match=r"Loses\.match got 17 tokens and returned kept \(2, 4\), src"
    ):
        match(Loses(), candidates())
