"""Streams from the metainfo of OpenMMLab's data samples, and where their results have objects.

A detector calls its backbone with pixels alone. A forward pre-hook on the detector, and on the
tracker around it, says whose they are, for the length of the call: it runs under a Runner and under
the inferencers alike. Of a tracker, a data sample is a clip, with a data sample for each frame.
"""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mmvitaccel.adapters.base import host_class
from mmvitaccel.core.eventful.frame import Clips, Frame, current_frames, streams
from mmvitaccel.core.eventful.gates.importance import Objects

# Each test-time flip and size of a video is a separate stream.
_VIEW_KEYS = ("flip", "flip_direction", "img_shape")
_CURE = (
    "put 'video_id' and 'frame_id' in the meta_keys, or name the stream: `with handle.stream(...)`."
)

#: Boxes with a lower score do not count as objects.
SMALLEST_SCORE = 0.3
_SIZES = ("batch_input_shape", "pad_shape", "img_shape")  # the first that is there is the input's


def clips_from_metainfo(
    metainfos: Sequence[Sequence[Mapping[str, Any]]],
) -> tuple[tuple[Frame, ...], ...] | None:
    """Frames of a batch of clips, from the metainfo of their images.

    Args:
        metainfos: Of each clip its frames' in order; a single image is a clip of one.
            ``video_id`` names the video, ``frame_id`` numbers the frame in it and ``scene_cut``
            flags a new scene; of a video whose ``video_length`` is there nothing is kept once it
            has ended. Different flips and sizes are different streams.

    Returns:
        The frames of each clip; None when none of them has a video id.

    Raises:
        ValueError: Some images have a video id and others have none, or two clips of a batch are
            of the same stream.
    """
    named = [info.get("video_id") is not None for clip in metainfos for info in clip]
    if not any(named):
        return None
    if not all(named):
        raise ValueError(
            f"Eventful: {named.count(False)} of {len(named)} images of a batch have no video_id; "
            "put 'video_id' and 'frame_id' in the meta_keys of the pipeline's packing."
        )
    clips = tuple(tuple(map(_frame, clip)) for clip in metainfos)
    streams_of = [{frame.stream for frame in clip} for clip in clips]
    if len(set().union(*streams_of)) < sum(map(len, streams_of)):
        videos = [clip[0]["video_id"] for clip in metainfos if clip]
        raise ValueError(
            f"Eventful: a batch holds several frames of one video (video_id: {videos}); give "
            "frames of a video one after the other, batch_size=1 or one video each."
        )
    return clips


def _frame(info: Mapping[str, Any]) -> Frame:
    view = tuple(_hashable(info.get(key)) for key in _VIEW_KEYS)
    stream = (info["video_id"], *view)
    # Of a clip, mmdet's video_length counts the clip's own frames
    length = info.get("ori_video_length", info.get("video_length"))
    cut = bool(info.get("scene_cut", False))
    return Frame(stream, info.get("frame_id"), cut, num_frames=length)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _images_of(sample: Any) -> Sequence[Any]:
    """The data samples of a clip's frames; of a single image its own."""
    return sample.video_data_samples if hasattr(sample, "video_data_samples") else [sample]


def _named_around(
    frames: tuple[Frame, ...], metainfos: Sequence[Sequence[Mapping[str, Any]]]
) -> Clips | None:
    """The frames of clips whose streams are named around the call; None where no clip is long."""
    if all(len(clip) == 1 for clip in metainfos) or len(frames) != len(metainfos):
        return None
    return Clips(
        [
            [
                replace(
                    frame,
                    frame_id=None if frame.frame_id is None else frame.frame_id + n,
                    cut=frame.cut and n == 0,
                    lockstep=False,
                )
                for n in range(len(clip))
            ]
            for frame, clip in zip(frames, metainfos)
        ]
    )


def takes_data_samples(model: nn.Module) -> bool:
    """Whether a model's forward has them as an argument, as OpenMMLab's have."""
    return "data_samples" in inspect.signature(host_class(model).forward).parameters


def objects_of(image: Any) -> Objects | None:
    """The boxes of an image's result, a data sample of OpenMMLab; None where it has none.

    Boxes are in the original picture; the metainfo says how that became the model's input.
    """
    found = getattr(image, "pred_instances", getattr(image, "pred_track_instances", None))
    if found is None or not {"bboxes", "scores"} <= set(found.keys()):
        return None
    size = next((image.metainfo[key] for key in _SIZES if key in image.metainfo), None)
    if size is None:
        return None
    boxes = getattr(found.bboxes, "tensor", found.bboxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        return None
    width, height = image.metainfo.get("scale_factor", (1.0, 1.0))
    shares = boxes * boxes.new_tensor([width / size[1], height / size[0]]).repeat(2)
    # Put outside instead of left out, since how many they are is not to be waited for
    return Objects(torch.where(found.scores[:, None] >= SMALLEST_SCORE, shares, -1.0))


class _Open(threading.local):
    """A thread's calls that have not ended, the innermost last, and the frames of each."""

    def __init__(self) -> None:
        self.calls: list[tuple[ExitStack, tuple[Frame, ...]]] = []


class FollowMetainfo:
    """Forward hooks that say, for the length of a call, whose images it is given.

    Images without a video id are unrelated: each is computed densely, with one warning. Stream
    names set around the call take precedence.

    Args:
        on_result: Given each frame of a call and its image's result, when the call has ended.
    """

    def __init__(self, on_result: Callable[[Frame, Any], None] = lambda frame, image: None) -> None:
        self._on_result = on_result
        self._open = _Open()
        self._warned = False
        self._handles: list[Any] = []

    def register(self, module: nn.Module) -> FollowMetainfo:
        """Put the hooks on a model that is called with ``data_samples``."""
        self._handles = [
            module.register_forward_pre_hook(self.enter, with_kwargs=True),
            # Of several such pairs on a model, the one that entered last leaves first.
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
        clips = self._clips(module, samples)
        opened, around = ExitStack(), current_frames()
        if clips is not None:
            opened.enter_context(streams(clips))
        frames = around if clips is None else clips.frames
        self._open.calls.append((opened, frames if isinstance(frames, tuple) else ()))

    def leave(self, module: nn.Module, args: tuple, out: Any) -> None:
        """After the call, also one that failed."""
        if not self._open.calls:
            return
        opened, frames = self._open.calls.pop()
        opened.close()
        samples = out if isinstance(out, (list, tuple)) else ()
        images = [image for sample in samples for image in _images_of(sample)]
        if len(images) == len(frames) and not module.training:
            for frame, image in zip(frames, images):
                self._on_result(frame, image)

    def _clips(self, module: nn.Module, samples: Any) -> Clips | None:
        """What is said of the call; None where what is said around it holds."""
        around = current_frames()
        if module.training or not isinstance(samples, (list, tuple)) or not samples:
            if around is not None or not takes_data_samples(module):
                return None
            if not module.training:
                self._warn("images came without data samples")
            # In training, a part in evaluation mode (frozen) sees images in any order.
            return Clips(None)
        metainfos = [
            [getattr(image, "metainfo", {}) for image in _images_of(sample)] for sample in samples
        ]
        clips = clips_from_metainfo(metainfos)
        if clips is not None:
            return Clips(clips, self._say_more)
        if around is not None:
            return _named_around(around, metainfos) if isinstance(around, tuple) else None
        self._warn("the images have no video_id")
        return Clips(None)

    def _say_more(self) -> None:
        self._warn("the model computes more images than its data samples name", "")

    def _warn(self, what: str, cure: str = f"; {_CURE}") -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"Eventful: {what}, so each is computed whole{cure or '.'}", stacklevel=4)

    def __deepcopy__(self, memo: dict[int, Any]) -> FollowMetainfo:
        # What is open belongs to calls of the original; a copied model calls by itself.
        copied = FollowMetainfo()
        memo[id(self)] = copied
        copied._on_result = copy.deepcopy(self._on_result, memo)  # of the copied model
        return copied
