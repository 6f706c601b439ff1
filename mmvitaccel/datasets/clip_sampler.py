"""Sampler that returns frames of videos clip by clip, for training."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmvitaccel.arguments import whole_number
from mmvitaccel.datasets.video_sampler import indices_by_video
from mmvitaccel.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ClipSampler(Sampler[int]):
    """Shuffles a frame dataset by clips, which are consecutive frames of a video.

    Every epoch splits the videos differently. If a video is shorter than a clip, its last frame is
    repeated, so a single image becomes a clip of identical frames. All ranks have the same number
    of clips. The data loader's ``batch_size`` must be a multiple of ``frames``.

    Args:
        dataset: Frame-level; ``get_data_info(index)`` names ``video_id`` and ``frame_id``.
        frames: Number of frames of a clip.
        seed: Seed, the same on all ranks; by default the ranks agree on one.

    Raises:
        TypeError: The dataset's items are not frames.
        ValueError: ``frames`` is below 1.
    """

    def __init__(self, dataset: Sized, frames: int = 2, seed: int | None = None) -> None:
        self.frames = whole_number("ClipSampler", "frames", frames, least=1)
        seed = whole_number("ClipSampler", "seed", seed, or_none=True)
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.seed = sync_random_seed() if seed is None else seed
        self.videos = indices_by_video(dataset, type(self).__name__)
        clips = sum(max(len(video) // self.frames, 1) for video in self.videos)
        self.num_clips = -(-clips // self.world_size)  # of a rank

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices, clip by clip."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        clips = [clip for video in self.videos for clip in self._cut(video, generator)]
        order = torch.randperm(len(clips), generator=generator).tolist()
        # Repeats clips if ranks would have different numbers
        order = (order * self.world_size)[: self.num_clips * self.world_size]
        for place in order[self.rank :: self.world_size]:
            yield from clips[place]

    def __len__(self) -> int:
        """Return how many frames this rank has."""
        return self.num_clips * self.frames

    def set_epoch(self, epoch: int) -> None:
        """Split and shuffle differently from the next iteration on."""
        self.epoch = epoch

    def _cut(self, video: list[int], generator: torch.Generator) -> list[list[int]]:
        """The clips of a video, starting at a random frame."""
        if len(video) < self.frames:
            return [video + [video[-1]] * (self.frames - len(video))]
        spare = len(video) % self.frames
        first = int(torch.randint(spare + 1, (), generator=generator))
        ends = range(first + self.frames, len(video) + 1, self.frames)
        return [video[end - self.frames : end] for end in ends]
