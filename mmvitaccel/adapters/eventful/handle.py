"""Handle of a method with streams."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from torch import Tensor, nn

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.adapters.base import class_name, spec_of
from mmvitaccel.adapters.eventful.run import ClipTraining, EventfulState
from mmvitaccel.adapters.eventful.streams.frame_info import FrameInfo
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.adapters.given import check_object
from mmvitaccel.adapters.handle import Handle
from mmvitaccel.arguments import whole_number
from mmvitaccel.core.eventful.frame import frames_of
from mmvitaccel.core.eventful.gates.importance import Objects
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.weighted import Weighted
from mmvitaccel.core.eventful.options import EventfulOptions


class StreamHandle(Handle):
    """Controls a method on one model.

    Args:
        model: A model with the method, or a model that contains one.

    Attributes:
        method: Name of the method.
        puts_on: Name of the function that attaches it.
        on_tokens: Whether its gates work on tokens of a transformer, not on a map.
        model: The module with the method.

    Raises:
        ValueError: No module of the model has the method.
    """

    puts_on: ClassVar[str]
    on_tokens: ClassVar[bool] = False
    _state: StreamRun

    def __init__(self, model: nn.Module) -> None:
        roots = (
            m
            for m in model.modules()
            if is_attached(m, self.method) and link(m, self.method).members
        )
        found = next(roots, None)
        if found is None:
            raise ValueError(
                f"{self.method} is not attached to this {type(model).__name__}; use "
                f"{self.puts_on}(model, ...)."
            )
        super().__init__(found)

    @property
    def policy(self) -> Policy:
        """Policy of the gates; a new one applies from the next frame on."""
        return self._state.policy

    @policy.setter
    def policy(self, value: Policy) -> None:
        self.check_attached("policy cannot be set")
        self._state.policy = checked_policy(value, self.on_tokens)

    @property
    def streams(self) -> list[Hashable]:
        """Names of stored streams, least recently used first."""
        return self._state.store.names

    @property
    def memory_bytes(self) -> int:
        """Memory of all streams in bytes."""
        return self._state.store.memory_bytes()

    @property
    def max_streams(self) -> int:
        """Maximum number of stored streams."""
        return self._state.store.max_streams

    def bytes_of(self, stream: Hashable) -> int:
        """Memory of one stream in bytes; 0 if it is not stored."""
        return self._state.store.memory_bytes(stream)

    def remembered(self, stream: Hashable) -> dict[int, Any]:
        """State of a stream, which belongs to the method.

        By number: the state of each block of a transformer, or that of a neck or head.

        Raises:
            KeyError: The stream is not stored.
        """
        return self._state.store.state(stream).blocks

    @property
    def frames(self) -> list[FrameInfo]:
        """Frames of the last call in the order of the batch or clip; synchronises with CUDA.

        For a detector or tracker whose data samples name the frames, this is its own last call.
        Each thread gets the frames of its own calls.
        """
        return [frame.counted() for frame in self._state.frames]

    @property
    def uncounted_frames(self) -> list[FrameInfo]:
        """:attr:`frames` without ``passed`` and ``left_out_by_gate``; does not synchronise."""
        return [frame.info for frame in self._state.frames]

    def passed_tokens(self) -> list[Tensor]:
        """Tokens that passed in the last call: (blocks, gates, B, N) bool for each frame.

        The frames are those of :attr:`frames`. B is 1 except for batches in lockstep; blocks is 0
        for a frame without a stream.
        """
        return [frame.tokens() for frame in self._state.frames]

    def stream(
        self,
        stream: Hashable | list[Hashable],
        frame_id: int | Sequence[int] | None = None,
        cut: bool | Sequence[bool] = False,
    ) -> AbstractContextManager[None]:
        """Context manager that names the streams of the calls in a ``with`` block.

        The name applies to this thread and task, and to functions that copy the context, such as
        ``asyncio.to_thread``. Threads may compute different streams at the same time; two
        concurrent frames of one stream raise an error.

        Args:
            stream: A list with an id for each image of the batch, or one id, which makes a batch of
                several images one frame of a stream (lockstep). None for no stream.
            frame_id: Number of the frame, or a list. A number that is not above the previous one
                resets the stream. None if frames are in order.
            cut: Whether a new scene begins, or a list; a cut resets the stream.

        Examples:
            >>> with handle.stream("video7", frame_id=3):
            ...     features = model(frame)
        """
        return self._state.names.given(frames_of(stream, frame_id, cut))

    def reset(self, stream: Hashable | None = None) -> None:
        """Drop the state of a stream, or of all: the next frame is a first frame."""
        self._state.store.drop(stream)

    def saw_objects(
        self,
        boxes: Tensor | None = None,
        heat: Tensor | None = None,
        stream: Hashable | None = None,
    ) -> None:
        """Set the positions of objects in a stream's last frame, for weighted policies.

        They are used until the next call of this method. Ignored for streams that are not stored.

        Args:
            boxes: (n, 4) left, top, right, bottom, from 0 to 1 of the model's input; n may be 0.
            heat: Alternatively a map (h, w) of the model's input in any resolution, at least 0.
            stream: Name of the stream; None for this thread's unnamed frames.

        Raises:
            ValueError: Not exactly one of ``boxes`` and ``heat`` is given, or it has another shape.
        """
        objects = Objects(boxes, heat).checked()
        self._state.store.saw_objects(
            self._state.call.unnamed if stream is None else stream, objects
        )

    def refresh(self, stream: Hashable | None = None) -> None:
        """Request that the next frame of a stream, or of all, is computed completely.

        Unlike :meth:`reset`, this continues the stream and reuses its memory. Later parts of a
        model also compute the frame completely if it has a name from :meth:`stream` or from data
        samples.
        """
        self._state.store.request_refresh(stream)

    def remove(self) -> None:
        """Restore the model exactly; a second call has no effect."""
        if self.attached:
            self._state.unfollow()
        super().remove()
        self._state.store.drop()

    def follow_metainfo(self, model: nn.Module) -> None:
        """Take stream names from the data samples of ``model``, which contains this one."""
        self._state.follow_metainfo(model)


class EventfulHandle(StreamHandle):
    """Controls Eventful on one model."""

    method = "Eventful"
    puts_on = "apply_eventful"
    on_tokens = True
    _state: EventfulState

    def train_on_clips(self, frames: int | None, policy: Policy | None = None) -> None:
        """Run the blocks on clips in training, like token-wise eventful blocks on videos.

        Gradients flow through tokens that passed, back to the frame in which they were computed.
        Evaluation does not change.

        Args:
            frames: Number of frames of a clip; a training batch has the frames of each clip next to
                each other. None for dense training.
            policy: Policy of all gates, which selects the same number for every clip.

        Raises:
            ValueError: ``frames`` is below 1, there is no policy, or the model has attention
                dropout, which is not supported here.
        """
        if frames is None:
            self._state.training = None
            return
        frames = whole_number("Eventful: train_on_clips", "frames", frames, least=1, of="frames")
        policy = checked_policy(policy, on_tokens=True)
        adapter = link(self.model).info.adapter
        blocks = adapter.blocks(self.model)
        drops = max(float(spec_of(block, adapter).attn_drop(block)) for block in blocks)
        if drops:
            raise ValueError(
                f"Eventful: {class_name(self.model)} drops {drops:.0%} of the attention weights in "
                "training, which clips do not support; build it with attention dropout 0."
            )
        self._state.training = ClipTraining(frames, policy)

    @property
    def options(self) -> EventfulOptions:
        """Options of the blocks."""
        return self._state.options


def checked_policy(policy: Policy, on_tokens: bool = False) -> Policy:
    """Check a policy.

    Args:
        policy: The given object.
        on_tokens: Whether the gates work on tokens of a transformer.

    Raises:
        TypeError: It has no method ``select``.
        ValueError: It weights tokens, but the gates work on a map.
    """
    give = "TopK(k), TopFraction(f), Threshold(t), Always() or an object with that method"
    check_object("Eventful", "policy", policy, ("select",), give)
    if isinstance(policy, Weighted) and not on_tokens:
        raise ValueError(
            f"Eventful: policy={policy!r} weights tokens of a transformer, but a neck or head "
            f"has none; use {policy.base!r}."
        )
    return policy
