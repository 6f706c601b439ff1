"""Streams from the metainfo of OpenMMLab's data samples.

A detector calls its backbone with pixels alone. A forward pre-hook on the detector says whose they
are, for the length of the call: it runs under a Runner and under the inferencers alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from mmvitaccel.core.eventful.frame import Frame, current_frames, streams

# Each test-time flip and size of a video is a separate stream.
_VIEW_KEYS = ("flip", "flip_direction", "img_shape")


def frames_from_metainfo(metainfos: Sequence[Mapping[str, Any]]) -> tuple[Frame, ...] | None:
    """Frames of a batch, from the metainfo of its images.

    Args:
        metainfos: ``video_id`` names the video, ``frame_id`` numbers the frame in it and
            ``scene_cut`` flags a new scene; of a video whose ``video_length`` is there nothing is
            kept once it has ended. Different flips and sizes are different streams.

    Returns:
        A frame for each image; None when none of them has a video id.

    Raises:
        ValueError: Some images have a video id and others have none, or two images of a batch are
            of the same stream.
    """
    named = [info.get("video_id") is not None for info in metainfos]
    if not any(named):
        return None
    if not all(named):
        raise ValueError(
            f"Eventful: {named.count(False)} of {len(named)} images of a batch have no video_id; "
            "put 'video_id' and 'frame_id' in the meta_keys of the pipeline's packing."
        )
    frames = []
    for info in metainfos:
        view = tuple(_hashable(info.get(key)) for key in _VIEW_KEYS)
        stream = (info["video_id"], *view)
        frames.append(
            Frame(
                stream,
                info.get("frame_id"),
                bool(info.get("scene_cut", False)),
                num_frames=info.get("video_length"),
            )
        )
    if len({frame.stream for frame in frames}) < len(frames):
        videos = [info["video_id"] for info in metainfos]
        raise ValueError(
            f"Eventful: a batch holds several frames of one video (video_id: {videos}); give "
            "frames of a video one after the other, batch_size=1 or one video each."
        )
    return tuple(frames)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


class FollowMetainfo:
    """Forward hooks that say, for the length of a call, whose images it is given.

    Images without a video id are strangers to each other: each is computed whole, which is said
    once. Streams that somebody named around the call stay as named.
    """

    def __init__(self) -> None:
        self._open: list[ExitStack] = []
        self._warned = False
        self._handles: list[Any] = []

    def register(self, module: nn.Module) -> FollowMetainfo:
        """Put the hooks on a model that is called with ``data_samples``."""
        self._handles = [
            module.register_forward_pre_hook(self.enter, with_kwargs=True),
            # reason: of several such pairs on a model, the one that entered last leaves first.
            module.register_forward_hook(self.leave, prepend=True, always_call=True),
        ]
        return self

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before the call: read the samples' metainfo."""
        samples = kwargs.get("data_samples", args[1] if len(args) > 1 else None)
        frames = None if module.training or not samples else self._frames(samples)
        opened = ExitStack()
        if frames is not None:
            opened.enter_context(streams(frames))
        self._open.append(opened)

    def leave(self, module: nn.Module, args: tuple, out: Any) -> None:
        """After the call, also one that failed."""
        if self._open:
            self._open.pop().close()

    def _frames(self, samples: Sequence[Any]) -> tuple[Frame, ...] | None:
        frames = frames_from_metainfo([sample.metainfo for sample in samples])
        if frames is not None or current_frames() is not None:
            return frames
        if not self._warned:
            self._warned = True
            warnings.warn(
                "Eventful: the images have no video_id, so each is computed whole; put 'video_id' "
                "and 'frame_id' in the meta_keys, or name the stream: `with handle.stream(...)`.",
                stacklevel=2,
            )
        return tuple(Frame(None) for _ in samples)

    def __deepcopy__(self, memo: dict[int, Any]) -> FollowMetainfo:
        # reason: what is open belongs to calls of the original; a copied model calls by itself.
        copied = FollowMetainfo()
        memo[id(self)] = copied
        return copied
