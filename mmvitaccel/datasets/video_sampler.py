"""A sampler that keeps all frames of a video on one rank and in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sized

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mmvitaccel.arguments import shown, whole_number
from mmvitaccel.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class VideoSampler(Sampler[int]):
    """Iterate over a dataset of frames, video by video.

    Every frame is yielded once, on one rank, after the earlier frames of its video; nothing is
    shuffled, repeated or dropped. Videos are assigned longest first to the rank with the fewest
    frames so far, identically on every rank. With fewer videos than ranks, the last ranks get none
    and their data loaders are empty.

    Args:
        dataset: Frame-level; ``get_data_info(index)`` names ``video_id`` and ``frame_id``.
        seed: Unused; mmengine's Runner passes one to every sampler.

    Attributes:
        indices: Dataset indices of this rank's frames, in order.

    Raises:
        TypeError: The dataset's items are not frames.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        whole_number("VideoSampler", "seed", seed, or_none=True)
        rank, world_size = get_dist_info()
        videos = indices_by_video(dataset, type(self).__name__)
        mine = _deal_out([len(frames) for frames in videos], world_size)[rank]
        self.indices = [index for video in mine for index in videos[video]]

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices, video by video, in order of frames."""
        return iter(self.indices)

    def __len__(self) -> int:
        """Return how many frames this rank has."""
        return len(self.indices)


def indices_by_video(dataset: Sized, sampler: str) -> list[list[int]]:
    """Indices of each video's frames, videos as the dataset has them, frames by number.

    Args:
        dataset: Of frames.
        sampler: Who asks, for messages.

    Raises:
        TypeError: The dataset's items are not frames.
    """
    if isinstance(dataset, type) or not hasattr(dataset, "get_data_info"):
        raise TypeError(
            f"{sampler}: dataset={shown(dataset)} is not a dataset: it has no get_data_info; give "
            "a dataset of frames, such as mmvitaccel.ImageNetVID."
        )
    frames = defaultdict(list)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if "video_id" not in info or "frame_id" not in info:
            raise TypeError(
                f"{sampler}: item {index} of {type(dataset).__name__} has no video_id and "
                "frame_id; give a dataset of frames, such as mmvitaccel.ImageNetVID."
            )
        frames[info["video_id"]].append((info["frame_id"], index))
    return [[index for _, index in sorted(video)] for video in frames.values()]


def _deal_out(lengths: list[int], world_size: int) -> list[list[int]]:
    """Share videos among ranks so that their numbers of frames are close.

    Args:
        lengths: Frames of each video.
        world_size: Number of ranks.

    Returns:
        For each rank the places of its videos in ``lengths``, ascending.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    frames = [0] * world_size
    for video in sorted(range(len(lengths)), key=lambda video: -lengths[video]):
        rank = frames.index(min(frames))
        shares[rank].append(video)
        frames[rank] += lengths[video]
    return [sorted(share) for share in shares]
