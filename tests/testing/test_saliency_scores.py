from __future__ import annotations

import numpy as np
import pytest

from mmvitaccel.testing.saliency_scores import scores_of

MASK = np.array([[1, 1, 0, 0]], dtype=bool)


def test_worked_out_by_hand():
    perfect = scores_of(np.array([[9.0, 8, 1, 0]]), MASK)
    assert perfect == (1, 1, 1)
    # above 3: one hit; above 2: one hit of two; above 1: two of three
    given = scores_of(np.array([[4.0, 2, 3, 1]]), MASK)
    f = [1.3 * p * r / (0.3 * p + r) for p, r in ((1, 0.5), (0.5, 0.5), (2 / 3, 1), (0.5, 1))]
    assert given.f == pytest.approx(max(f))
    assert given.iou == pytest.approx(2 / 3)
    assert given.auc == pytest.approx(3 / 4)  # of the four pairs three are in order


def test_one_value_everywhere_is_chance():
    assert scores_of(np.zeros((1, 4)), MASK).auc == pytest.approx(0.5)


def test_scale_does_not_matter_and_auc_is_the_share_of_ordered_pairs():
    generator = np.random.default_rng(0)
    x, mask = generator.normal(size=(6, 7)), generator.random((6, 7)) < 0.3
    given = scores_of(x, mask)
    assert scores_of(3 * x - 5, mask) == given
    assert given.auc == pytest.approx((x[mask][:, None] > x[~mask]).mean())


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match=r"the map has shape \(2, 2\) and the mask \(1, 4\)"):
        scores_of(np.zeros((2, 2)), MASK)
    for mask in (np.zeros((1, 4), bool), np.ones((1, 4), bool)):
        with pytest.raises(ValueError, match=rf"{mask.sum()} of 4 pixels set"):
            scores_of(np.zeros((1, 4)), mask)
