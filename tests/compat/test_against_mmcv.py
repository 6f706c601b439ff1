"""The stand-ins against mmcv's own compiled operators, where those are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import pytest
import torch

import mmvitaccel  # noqa: F401  (the stand-ins have to be there before mmcv.ops)
from mmvitaccel.compat.fallback import STAND_INS, StandInFinder

ops = pytest.importorskip("mmcv.ops")
compiled = importlib.import_module("mmcv._ext")
pytestmark = pytest.mark.skipif(
    compiled.__file__ == str(STAND_INS["mmcv._ext"]),
    reason="mmcv-lite is installed: there are no compiled operators to compare with",
)
USERS = ("nms", "roi_align", "deform_conv", "modulated_deform_conv")


@pytest.fixture
def stand_in() -> object:
    """The stand-in's module, executed under another name."""
    spec = StandInFinder().find_spec("mmcv._ext")
    spec.loader.name = spec.name = "some_ext"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def both(monkeypatch, stand_in) -> Callable[..., Iterator[list[torch.Tensor]]]:
    """Call a function of mmcv.ops with the compiled operators, then with the stand-ins."""

    def run(function: Callable[..., list[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
        yield function()
        for user in USERS:
            monkeypatch.setattr(importlib.import_module(f"mmcv.ops.{user}"), "ext_module", stand_in)
        yield function()

    return run


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes(count: int) -> torch.Tensor:
    corner = randn(count, 2).abs() * 20
    return torch.cat((corner, corner + randn(count, 2, seed=1).abs() * 15), dim=1)


def with_gradients(
    function: Callable[..., torch.Tensor], *inputs: torch.Tensor
) -> list[torch.Tensor]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    output = function(*leaves)
    return [output, *torch.autograd.grad(output, leaves, randn(*output.shape, seed=9))]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_nms(both, offset: int, threshold: float) -> None:
    scores = randn(80, seed=2).sigmoid()
    theirs, mine = both(lambda: list(ops.nms(boxes(80), scores, threshold, offset=offset)))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(both, method: str, offset: int) -> None:
    scores = randn(80, seed=2).sigmoid()
    theirs, mine = both(
        lambda: list(ops.soft_nms(boxes(80), scores, 0.3, 0.5, 0.1, method, offset))
    )
    assert len(theirs[0]) < 80
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(both, mode: str, aligned: bool, ratio: int) -> None:
    rois = torch.cat((torch.arange(12.0)[:, None] % 2, boxes(12) * 2 - 8), dim=1)
    theirs, mine = both(
        lambda: with_gradients(
            lambda x: ops.roi_align(x, rois, (7, 5), 0.25, ratio, mode, aligned), randn(2, 3, 12, 9)
        )
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_deform_conv(both) -> None:
    operands = randn(2, 4, 7, 6), randn(2, 36, 4, 6, seed=1), randn(6, 2, 3, 3, seed=2)
    theirs, mine = both(
        lambda: with_gradients(
            lambda *leaves: ops.deform_conv2d(*leaves, (2, 1), 1, 1, 2, 2), *operands
        )
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_modulated_deform_conv(both) -> None:
    operands = [randn(2, 4, 7, 6), randn(2, 36, 4, 6, seed=1), randn(2, 18, 4, 6, seed=3)]
    operands += [randn(6, 2, 3, 3, seed=2), randn(6, seed=4)]
    theirs, mine = both(
        lambda: with_gradients(
            lambda *leaves: ops.modulated_deform_conv2d(*leaves, (2, 1), 1, 1, 2, 2), *operands
        )
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
