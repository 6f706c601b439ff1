"""Which of several processes that failed is named."""

from __future__ import annotations

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmvitaccel.runner import launch


def failing(monkeypatch, *codes):
    """Processes that ended with these statuses, one after the other."""
    failures = {}
    for rank, code in enumerate(codes):
        failures[rank] = ProcessFailure(rank, 100 + rank, code, "no file")
        failures[rank].timestamp = rank

    def run(args):
        raise ChildFailedError("tool", failures)

    monkeypatch.setattr(launch.run, "main", run)


@pytest.mark.parametrize(
    ("codes", "status", "message"),
    [
        ((2, -9), 2, "process 1 was ended by SIGKILL"),
        ((2, 1), 1, "process 1 failed with status 1"),
        ((2, 2), 2, "process 0 was given something wrong"),
        ((-15, 2), 2, "process 1 was given something wrong"),
        ((-15, -9), 2, "process 1 was ended by SIGKILL"),
        ((-15, -15), 2, "process 0 was ended by SIGTERM"),
        ((1, -9), 1, "process 0 failed with status 1"),
    ],
)
def test_who_lost_a_neighbour_is_not_the_one_that_failed(
    monkeypatch, capsys, codes, status, message
):
    failing(monkeypatch, *codes)
    with pytest.raises(SystemExit) as stopped:
        launch.main([])
    assert stopped.value.code == status
    assert message in capsys.readouterr().err
