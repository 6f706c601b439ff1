"""Identities over frames, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData

pytest.importorskip("lap", reason="ByteTracker needs the package lap")
structures = pytest.importorskip("mmdet.structures")

from mmvitaccel.video_demo.tracks import Tracks  # noqa: E402


def sample(number, lefts):
    boxes = torch.tensor([[left, 10.0, left + 20.0, 40.0] for left in lefts])
    found = structures.DetDataSample(metainfo=dict(frame_id=number))
    found.pred_instances = InstanceData(
        bboxes=boxes,
        labels=torch.zeros(len(lefts), dtype=torch.long),
        scores=torch.full((len(lefts),), 0.9),
    )
    return found


def test_numbers_stay_with_their_objects_and_memory_is_bounded():
    tracks = Tracks()
    for number in range(60):
        tracked = tracks.follow(sample(number, [10.0 + number, 200.0 - number]))
        ids = tracked.instances_id[tracked.bboxes[:, 0].argsort()].tolist()
        assert ids == [0, 1]
    kept = [
        len(values)
        for track in tracks._tracker.tracks.values()
        for values in track.values()
        if isinstance(values, list)
    ]
    assert kept and max(kept) <= 5


def test_two_videos_have_nothing_in_common():
    first, second = Tracks(), Tracks()
    first.follow(sample(0, [10.0, 100.0]))
    assert second.follow(sample(0, [50.0])).instances_id.tolist() == [0]
