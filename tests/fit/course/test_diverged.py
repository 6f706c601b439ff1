"""A training whose loss is lost says so once."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
from mmengine.logging import HistoryBuffer

from mmvitaccel.fit.course.diverged import DivergedHook

NAN, INF = float("nan"), float("inf")


def said(*losses: float) -> list[str]:
    hook, buffer = DivergedHook(), HistoryBuffer()
    hub = SimpleNamespace(log_scalars={"train/loss": buffer})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index, loss in enumerate(losses):
            buffer.update(loss)
            hook.after_train_iter(SimpleNamespace(message_hub=hub, iter=index))
    return [str(warning.message) for warning in caught]


def test_a_loss_that_is_lost_is_said_once():
    (sentence,) = said(1.0, NAN, NAN, INF, NAN, NAN, NAN)
    assert sentence.startswith(
        "the loss has been NaN or infinite since iteration 2: the training has"
    )


@pytest.mark.parametrize("losses", [(1.0, 0.5), (NAN, INF, 1.0, NAN, NAN, 2.0)])
def test_single_losses_may_be_lost(losses):
    assert said(*losses) == []


def test_a_model_without_a_sum_of_losses():
    hub = SimpleNamespace(log_scalars={})
    DivergedHook().after_train_iter(SimpleNamespace(message_hub=hub, iter=0))
