"""Functions of OpenMMLab that were written for a numpy before 1.24."""

from __future__ import annotations

import numpy as np
import pytest

import mmvitaccel  # noqa: F401  (applies the patches)


def test_recall_of_proposals_whose_pictures_have_different_numbers_of_boxes():
    from mmdet.evaluation.functional import eval_recalls

    box = np.array([[0.0, 0.0, 10.0, 10.0]])
    far = box + 100
    truths = [box, np.concatenate([box, far]), np.zeros((0, 4))]
    scored = [np.hstack([b, np.ones((len(b), 1))]) for b in (box, np.concatenate([box, box]), far)]
    # of three objects, the first of each of two pictures is found
    recalls = eval_recalls(truths, scored, [1, 2], [0.5, 0.9], logger="silent")
    np.testing.assert_allclose(recalls, np.full((2, 2), 2 / 3))
    same = eval_recalls(truths[:1] * 2, scored[:1] * 2, [1], [0.5], logger="silent")
    np.testing.assert_allclose(same, [[1.0]])


@pytest.mark.parametrize("name", ["mmdet.evaluation.functional.ytviseval", "mmcv.ops.pixel_group"])
def test_names_that_numpy_took_out(name):
    module = __import__(name, fromlist=["np"])
    assert module.np.cumsum([1, 2]).astype(module.np.float).dtype == np.float64
    assert module.np.array([1, 2], dtype=module.np.float32).dtype == np.float32
    assert not hasattr(np, "array_of_objects")
    with pytest.raises(AttributeError):
        module.np.no_such_name  # noqa: B018


def test_arrays_are_numpys_wherever_numpy_makes_them():
    from mmdet.evaluation.functional import recall

    ragged = recall.np.array([np.zeros((1, 2)), np.zeros((1, 3))])
    assert [ragged.shape, ragged[1].shape] == [(2,), (1, 3)]
    assert recall.np.array([np.zeros((2, 2)), np.zeros((2, 3))])[1].shape == (2, 3)
    assert recall.np.array([np.zeros((1, 2))] * 2).shape == (2, 1, 2)
    with pytest.raises(ValueError, match="inhomogeneous"):
        recall.np.array([[1], [1, 2]])
