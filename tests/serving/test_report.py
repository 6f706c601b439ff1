"""A worker's counters."""

from __future__ import annotations

import pytest

from mmvitaccel.serving.answers import Refused
from mmvitaccel.serving.report import Tally

NOW = dict(streams=0, remembered=0, memory_bytes=0, waiting=0)


def test_reasons_that_cannot_refuse_a_frame_are_not_reported_as_zero():
    """Dropped frames are in the counts; a zero among the refusals would hide them."""
    tally = Tally()
    with pytest.raises(Refused), tally.refusals_counted():
        raise Refused("order", "late")
    found = tally.report(**NOW).refusals
    assert found["order"] == 1 and found["large"] == 0
    assert not {"dropped", "failed", "lost"} & set(found)
    with pytest.raises(Refused), tally.refusals_counted():
        raise Refused("failed", "a model's own `prepare` said so")
    assert tally.report(**NOW).refusals["failed"] == 1
