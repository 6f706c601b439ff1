from __future__ import annotations

import pytest

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.datasets import VideoSampler, video_sampler
from mmvitaccel.registry import DATA_SAMPLERS


class Frames:
    """A dataset of (video_id, frame_id) pairs."""

    def __init__(self, pairs):
        self.pairs = list(pairs)

    def __len__(self):
        return len(self.pairs)

    def get_data_info(self, index):
        video_id, frame_id = self.pairs[index]
        return {"video_id": video_id, "frame_id": frame_id}


def frames(*lengths) -> Frames:
    return Frames((v, f) for v, length in enumerate(lengths) for f in range(length))


def shares(dataset, world_size, monkeypatch) -> list[list[tuple[int, int]]]:
    """What each rank would go through."""
    of_ranks = []
    for rank in range(world_size):
        monkeypatch.setattr(video_sampler, "get_dist_info", lambda rank=rank: (rank, world_size))
        of_ranks.append([dataset.pairs[i] for i in VideoSampler(dataset)])
    return of_ranks


def test_one_process_goes_through_all_in_order():
    dataset = frames(3, 2, 4)
    sampler = DATA_SAMPLERS.build(
        dict(type="mmvitaccel.VideoSampler"), default_args=dict(dataset=dataset, seed=7)
    )
    assert list(sampler) == list(range(9)) and len(sampler) == 9
    assert list(sampler) == list(range(9)), "a second epoch must be the same"


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("lengths", [(5, 5), (1, 9, 2, 2, 7), (30, 1, 1, 1, 1, 1)])
def test_whole_videos_each_frame_once(lengths, world_size, monkeypatch):
    of_ranks = shares(frames(*lengths), world_size, monkeypatch)
    everything = [pair for share in of_ranks for pair in share]
    assert sorted(everything) == frames(*lengths).pairs
    for share in of_ranks:
        assert share == sorted(share)
    for video in range(len(lengths)):
        assert sum(any(pair[0] == video for pair in share) for share in of_ranks) == 1


def test_fewer_videos_than_ranks(monkeypatch):
    of_ranks = shares(frames(4, 6), 4, monkeypatch)
    assert [len(share) for share in of_ranks] == [6, 4, 0, 0]


def test_load_is_shared_by_frames_not_by_videos(monkeypatch):
    of_ranks = shares(frames(10, 1, 1, 1, 1, 6), 2, monkeypatch)
    assert [len(share) for share in of_ranks] == [10, 10]


def test_unsorted_dataset_still_comes_in_order():
    dataset = Frames([(1, 2), (0, 1), (1, 0), (0, 0), (1, 1)])
    assert [dataset.pairs[i] for i in VideoSampler(dataset)] == [
        (1, 0), (1, 1), (1, 2), (0, 0), (0, 1),
    ]  # fmt: skip


def test_dataset_of_whole_videos_is_refused():
    class Videos(Frames):
        def get_data_info(self, index):
            return {"video_id": index, "images": []}

    with pytest.raises(TypeError, match="item 0 of Videos has no video_id and frame_id"):
        VideoSampler(Videos([(0, 0)]))
