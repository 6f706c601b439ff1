"""Runs that picture merged tokens: what a model has already is kept."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.pictures.token_run import _attach

timm = pytest.importorskip("timm", reason="timm is not installed")


@pytest.mark.filterwarnings("ignore:ToMe was on this")
def test_a_model_that_prunes_keeps_doing_so():
    model = timm.create_model("vit_tiny_patch16_224", depth=2)
    apply_tome(model, 3, reduction="prune")
    handle = _attach(Config({}), model, None, None)
    assert handle.r == 3 and link(model).state.options.reduction == "prune"
