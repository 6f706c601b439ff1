"""The handle of a method that remembers streams."""

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
from mmvitaccel.adapters.handle import Handle
from mmvitaccel.core.eventful.frame import frames_of
from mmvitaccel.core.eventful.gates.importance import Objects
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.weighted import Weighted
from mmvitaccel.core.eventful.options import EventfulOptions


class StreamHandle(Handle):
    """Steers a method on one model.

    Args:
        model: A model that the method is on, or that holds one.

    Attributes:
        method: Name of the method.
        puts_on: The function that puts it on a model.
        on_tokens: Whether its gates stand on the tokens of a transformer, not on a map.
        model: The module that the method is on.

    Raises:
        ValueError: The method is on none of the model's modules.
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
                f"{self.method} is not on this {type(model).__name__}; use "
                f"{self.puts_on}(model, ...)."
            )
        super().__init__(found)

    @property
    def policy(self) -> Policy:
        """Says what the gates let through; a new one holds from the next frame on."""
        return self._state.policy

    @policy.setter
    def policy(self, value: Policy) -> None:
        self._state.policy = checked_policy(value, self.on_tokens)

    @property
    def streams(self) -> list[Hashable]:
        """Streams that are remembered, least recently used first."""
        return self._state.store.names

    @property
    def memory_bytes(self) -> int:
        """Bytes that the memory of all streams takes."""
        return self._state.store.memory_bytes()

    @property
    def max_streams(self) -> int:
        """Most streams that are remembered at a time."""
        return self._state.store.max_streams

    def bytes_of(self, stream: Hashable) -> int:
        """Bytes that the memory of one stream takes; 0 if it is not remembered."""
        return self._state.store.memory_bytes(stream)

    def remembered(self, stream: Hashable) -> dict[int, Any]:
        """What is remembered of a stream; it belongs to the method.

        Of a transformer the memory of each block, of a neck or head its one, by number.

        Raises:
            KeyError: The stream is not remembered; :attr:`streams` are.
        """
        return self._state.store.state(stream).blocks

    @property
    def frames(self) -> list[FrameInfo]:
        """The frames of the last call, in the batch's or clip's order; waits for a CUDA device.

        Of a detector or tracker, whose data samples name the frames, of its own last call. Of
        several threads that call the model, each is told of its own.
        """
        return [frame.counted() for frame in self._state.frames]

    @property
    def uncounted_frames(self) -> list[FrameInfo]:
        """:attr:`frames` without ``passed`` and ``left_out_by_gate``; waits for no device."""
        return [frame.info for frame in self._state.frames]

    def passed_tokens(self) -> list[Tensor]:
        """Which tokens passed in the last call: (blocks, gates, B, N) bool for each frame.

        The frames are those of :attr:`frames`. B is 1 but for frames that went in lockstep; blocks
        is 0 for a frame of no stream.
        """
        return [frame.tokens() for frame in self._state.frames]

    def stream(
        self,
        stream: Hashable | list[Hashable],
        frame_id: int | Sequence[int] | None = None,
        cut: bool | Sequence[bool] = False,
    ) -> AbstractContextManager[None]:
        """Say whose frames the calls in a ``with`` block are given.

        The name holds in this thread and task, and in what takes its context along, as
        ``asyncio.to_thread`` does. Threads may compute different streams at the same time; two that
        compute frames of one stream at a time are refused.

        Args:
            stream: A list with an id for each image of the batch; or one id, and then a batch of
                several goes in lockstep as one stream. None: belongs to no stream.
            frame_id: Number of the frame, or a list; one that is not above the last one starts the
                stream clean. None where frames come in order.
            cut: Whether a new scene begins, or a list; it starts the stream clean.

        Examples:
            >>> with handle.stream("video7", frame_id=3):
            ...     features = model(frame)
        """
        return self._state.names.given(frames_of(stream, frame_id, cut))

    def reset(self, stream: Hashable | None = None) -> None:
        """Forget a stream, or all of them: the next frame is a first one."""
        self._state.store.drop(stream)

    def saw_objects(
        self,
        boxes: Tensor | None = None,
        heat: Tensor | None = None,
        stream: Hashable | None = None,
    ) -> None:
        """Say where objects are in a stream's last frame, for policies that weigh by it.

        It holds until the next call. Nothing is kept of a stream that is not remembered.

        Args:
            boxes: (n, 4) left, top, right, bottom, from 0 to 1 of the model's input; n may be 0.
            heat: (h, w) a map of the model's input in any resolution, at least 0, instead.
            stream: Its name; None for frames of this thread that come without one.

        Raises:
            ValueError: Not exactly one of ``boxes`` and ``heat`` is given, or it has another shape.
        """
        objects = Objects(boxes, heat).checked()
        self._state.store.saw_objects(
            self._state.call.unnamed if stream is None else stream, objects
        )

    def refresh(self, stream: Hashable | None = None) -> None:
        """Let the next frame of a stream, or of all, be computed whole.

        Unlike :meth:`reset` it goes on with the stream, whose memory is used again. Parts of a
        model that come later compute the frame whole too, if it is named around the call: by
        :meth:`stream`, or by data samples.
        """
        self._state.store.request_refresh(stream)

    def remove(self) -> None:
        """Give the model back bit for bit; a second call changes nothing."""
        if self.attached:
            self._state.unfollow()
        super().remove()
        self._state.store.drop()

    def follow_metainfo(self, model: nn.Module) -> None:
        """Take streams from the data samples that ``model``, around this one, is called with."""
        self._state.follow_metainfo(model)


class EventfulHandle(StreamHandle):
    """Steers Eventful on one model."""

    method = "Eventful"
    puts_on = "apply_eventful"
    on_tokens = True
    _state: EventfulState

    def train_on_clips(self, frames: int | None, policy: Policy | None = None) -> None:
        """Let the blocks run on clips in training, as token-wise eventful blocks do on videos.

        Gradients go through what passed, and back to the frame in which it was computed. Without
        this, and in evaluation, nothing changes.

        Args:
            frames: Of a clip; a training batch holds those of each clip one after the other. None:
                training is that of the dense model again.
            policy: Of all gates, one that lets the same number through for every clip.

        Raises:
            ValueError: ``frames`` is below 1, there is no policy, or the model drops attention
                weights in training, which is not done here.
        """
        if frames is None:
            self._state.training = None
            return
        if isinstance(frames, bool) or int(frames) != frames or frames < 1 or policy is None:
            raise ValueError(
                f"Eventful: train_on_clips({frames!r}, {policy!r}) needs a whole number of frames, "
                "at least 1, and a policy."
            )
        adapter = link(self.model).info.adapter
        blocks = adapter.blocks(self.model)
        drops = max(float(spec_of(block, adapter).attn_drop(block)) for block in blocks)
        if drops:
            raise ValueError(
                f"Eventful: {class_name(self.model)} drops {drops:.0%} of the attention weights in "
                "training, which clips do not support; build it with attention dropout 0."
            )
        self._state.training = ClipTraining(int(frames), checked_policy(policy, on_tokens=True))

    @property
    def options(self) -> EventfulOptions:
        """How the blocks run."""
        return self._state.options


def checked_policy(policy: Policy, on_tokens: bool = False) -> Policy:
    """The policy, if it is one.

    Args:
        policy: What was given.
        on_tokens: Whether the gates stand on the tokens of a transformer.

    Raises:
        TypeError: It has no method ``select``.
        ValueError: It weighs tokens, and the gates stand on a map.
    """
    if not callable(getattr(policy, "select", None)):
        raise TypeError(
            f"Eventful: policy={policy!r} has no method select; give TopK(k), TopFraction(f), "
            "Threshold(t), Always() or an object with that method."
        )
    if isinstance(policy, Weighted) and not on_tokens:
        raise ValueError(
            f"Eventful: policy={policy!r} weighs the tokens of a transformer, and a neck or head "
            f"has none; give it {policy.base!r}."
        )
    return policy
