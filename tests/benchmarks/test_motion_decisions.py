"""The benchmark of what the decisions of motion are worth, with small models on a drawn still."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmvitaccel.errors import UserError


def test_rows(load_benchmark, monkeypatch, small_vitdet, tmp_path, recorded):
    module = load_benchmark("motion_decisions")
    small = dict(patch_size=16, window_size=3, pretrain_img_size=64)
    monkeypatch.setattr(module, "vitdet", lambda **kwargs: small_vitdet(**{**small, **kwargs}))
    coarse = np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8)
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), cv2.resize(coarse, (384, 384), interpolation=cv2.INTER_CUBIC))
    module.main([str(path), "--size", "192", "--record"])
    rows = recorded("motion-decisions").rows
    found = {row["decision"]: row for row in rows}
    assert len(found) == 10 and len(rows) == 12
    assert found["absolute positions"]["chosen"] == 0 < found["absolute positions"]["instead"]
    # of 11 rows of tokens that stay, 2 are in windows that lost one
    assert found["window grid"]["chosen"] == pytest.approx(100 * 2 / 11)
    assert found["window grid"]["instead"] > 90
    keys = found["keys that leave the running sums"]
    assert keys["chosen"] < 1e-5 < keys["instead"]
    assert found["boxes"]["chosen"] == 0 and 0 < found["boxes"]["instead"] < 16
    assert found["padding at the right and bottom"]["chosen"] > 0
    assert found["padding at the right and bottom"]["instead"] == 0
    assert found["maps"]["chosen"] < found["maps"]["instead"]
    with pytest.raises(UserError, match="--size 100 must be a multiple of 16 and at least 64"):
        module.main.__wrapped__([str(path), "--size", "100"])
