"""Clips of a data set of frames: consecutive, shuffled, as many on every rank."""

from __future__ import annotations

import pytest

from mmvitaccel.datasets import ClipSampler, clip_sampler


class Frames:
    """Frames of videos of the given lengths, in any order."""

    def __init__(self, *lengths):
        self.items = [(video, frame) for video, n in enumerate(lengths) for frame in range(n)]
        self.items = self.items[::-1]

    def __len__(self):
        return len(self.items)

    def get_data_info(self, index):
        video, frame = self.items[index]
        return dict(video_id=video, frame_id=frame)


def clips(sampler, dataset):
    found = [dataset.items[index] for index in sampler]
    assert len(found) == len(sampler)
    step = sampler.frames
    return [found[first : first + step] for first in range(0, len(found), step)]


def test_clips_are_consecutive_frames_of_one_video():
    dataset = Frames(7, 3, 12)
    sampler = ClipSampler(dataset, frames=3, seed=0)
    epochs = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        found = clips(sampler, dataset)
        assert len(found) == 2 + 1 + 4
        for clip in found:
            assert len({video for video, _ in clip}) == 1
            numbers = [frame for _, frame in clip]
            assert numbers == list(range(numbers[0], numbers[0] + 3))
        frames = [frame for clip in found for frame in clip]
        assert len(set(frames)) == len(frames)
        assert clips(sampler, dataset) == found  # an epoch is the same each time
        epochs.append(found)
    assert len({str(found) for found in epochs}) == 6
    # the seven frames are cut from the first on or from the second on
    assert {min(clip)[1] for found in epochs for clip in found if clip[0][0] == 0} >= {0, 1}


def test_an_image_is_a_clip_that_stands_still():
    dataset = Frames(1, 2)
    found = clips(ClipSampler(dataset, frames=3, seed=0), dataset)
    assert sorted(found) == [[(0, 0)] * 3, [(1, 0), (1, 1), (1, 1)]]


def test_ranks_share_the_clips(monkeypatch):
    dataset, found = Frames(4, 4, 2), []
    for rank in range(2):
        monkeypatch.setattr(clip_sampler, "get_dist_info", lambda rank=rank: (rank, 2))
        sampler = ClipSampler(dataset, frames=2, seed=0)
        assert len(sampler) == 3 * 2  # five clips, one of them twice
        found += clips(sampler, dataset)
    assert len(found) == 6 and len({str(clip) for clip in found}) == 5


def test_what_makes_no_sense_is_refused():
    for value in (0, 2.5, True):
        with pytest.raises(ValueError, match=rf"ClipSampler: frames={value!r} must be a whole"):
            ClipSampler(Frames(3), frames=value)

    class Pictures(Frames):
        def get_data_info(self, index):
            return dict(img_id=index)

    with pytest.raises(TypeError, match="ClipSampler: item 0 of Pictures has no video_id"):
        ClipSampler(Pictures(3))
