"""Full-size released models, generated from names and shapes with random weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmvitaccel.conversion.convert import convert_weights, find_layout
from mmvitaccel.registry import MODELS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def _quick(one_thread, metafiles_read_once):
    """In one thread, and with few files to read."""


def fill_shapes(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return seeded random weights that preserve the scale of activations; norms are about one."""
    noise = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=noise)
        if name.endswith("running_var"):
            value = value.abs() + 0.5
        elif len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.2 * value
        elif len(shape) > 1 and name.endswith("weight"):
            value = value / math.sqrt(math.prod(shape[1:]))
        else:
            value = 0.2 * value
        weights[name] = value
    return weights


@pytest.fixture
def fill() -> Callable[..., dict[str, Tensor]]:
    """See :func:`fill_shapes`."""
    return fill_shapes


@pytest.fixture
def build_from() -> Callable[..., nn.Module]:
    """``build_from('vitdet/x.py', weights)``: the config's model with converted weights in it."""

    def build(path: str, weights: Mapping[str, Tensor], **changes: object) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg = Config.fromfile(CONFIGS / path)
        cfg.merge_from_dict(changes)
        # Initial values are overwritten, and drawing them takes seconds.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.init, "kaiming_uniform_", lambda tensor, *args, **kwargs: tensor)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                model = MODELS.build(copy.deepcopy(cfg.model))
        # The converted weights are complete, and nothing is left out.
        model.load_state_dict(weights, strict=True, assign=True)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture
def convert() -> Callable[..., dict[str, Tensor]]:
    """Convert weights that must be recognised as a layout, without unknown tensors."""

    def run(weights: Mapping[str, Tensor], name: str, recognised: bool = True) -> dict:
        layout = find_layout(weights, "released.pth", "" if recognised else name)
        assert layout.name == name
        converted, report = convert_weights(weights, layout, "released.pth")
        assert [entry.name for entry in report.entries] == list(weights)
        assert all("not known" not in entry.note for entry in report.entries)
        return converted

    return run
