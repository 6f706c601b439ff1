"""Functions of OpenMMLab that were written for a numpy before 1.24."""

from __future__ import annotations

import cv2
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


@pytest.mark.parametrize("factor", [-0.4, -0.05, 0.05, 0.4])
def test_hues_are_turned_in_both_directions(factor):
    pytest.importorskip("mmaction")
    from mmaction.datasets.transforms import ColorJitter

    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    turned = ColorJitter.adjust_hue(picture.astype(np.float32), factor)
    assert (turned.dtype, turned.shape) == (np.float32, picture.shape)
    before, after = (
        cv2.cvtColor(p.astype(np.uint8), cv2.COLOR_RGB2HSV).astype(int) for p in (picture, turned)
    )
    clear = (before[..., 1] > 100) & (before[..., 2] > 100)  # grey has no hue
    off = (after - before)[..., 0][clear] - int(factor * 255)
    assert clear.sum() > 9
    assert (np.minimum(off % 180, -off % 180) <= 2).all()  # rounding of RGB
