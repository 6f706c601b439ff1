"""The state of a stream, and the call that computes its current frame.

The state is a plain object of the stream. It is not stored in modules, where frames of other
streams would find it, nor in registered buffers, which are saved, cast and averaged over ranks.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.host_reads import Alarms
from mmvitaccel.core.eventful.gates.importance import Matters
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.refresh import WholeFrames
from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.core.eventful.motion.scene import Scene

_CHANGES = 4  # in a row, after which it is no exception


class Turn:
    """A call that computes frames and owns their streams meanwhile.

    Attributes:
        thread: Thread of the call. Streams of a thread that has ended are free.
    """

    def __init__(self) -> None:
        self.thread = threading.current_thread()


@dataclass
class StreamState:
    """State of one stream.

    Attributes:
        blocks: State of each block by number.
        frame_id: Number of the last frame.
        num_frames: Frames since the last reset, including the current one.
        seen: Frames since the start of the video, including the current one.
        signature: Properties that must not change: shape, dtype, device, weights.
        weights: Norms of weights that are not in ``signature``, at the last reset.
        unsound: Alarm for frames with non-finite values and for changed ``weights``.
        busy: Whether a block is running or was interrupted by an error.
        refreshed: Whether this frame is a refresh.
        policy: Policy of this frame; None if it is the same for the whole batch.
        whole: State of the refreshes.
        matters: State of the importances.
        scene: The scene, with motion.
        place: Position of the view, for a part that gets maps of a view.
        misfit_said: Whether a frame that does not show the previous scene was reported.
        changes: Number of successive frames that started over because ``signature`` had changed.
        heard: Number of the last message of another part of the model.
        turn: The call that computes its current frame; None between frames.
    """

    blocks: dict[int, Any] = field(default_factory=dict)
    frame_id: int | None = None
    num_frames: int = 0
    seen: int = 0
    signature: Any = None
    weights: Tensor | None = None
    unsound: Alarms = field(default_factory=Alarms)
    busy: bool = False
    refreshed: bool = False
    policy: Policy | None = None
    whole: WholeFrames = field(default_factory=WholeFrames)
    matters: Matters = field(default_factory=Matters)
    scene: Scene | None = None
    place: Place | None = None
    misfit_said: bool = False
    changes: int = 0
    heard: int | None = None
    turn: Turn | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a call is computing a frame of the stream."""
        return self.turn is not None and self.turn.thread.is_alive()

    def begin(self, frame: Frame, signature: Any, weights: Tensor | None = None) -> None:
        """Start a frame, with the stored state if it is valid, or after a reset.

        Args:
            frame: The frame.
            signature: Properties that must not change.
            weights: Values on the device that must not change, (n,).
        """
        if self.weights is not None and weights is not None and self.signature == signature:
            self.unsound.watch((self.weights != weights).any())
        advances = None in (frame.frame_id, self.frame_id) or frame.frame_id > self.frame_id
        goes_on = (
            advances
            and not frame.cut
            and not self.busy
            and self.signature == signature
            and not self.unsound.raised
        )
        changed = advances and not frame.cut and self.num_frames > 0 and self.signature != signature
        self.changes = self.changes + 1 if changed else 0
        if self.changes == _CHANGES:
            self._say_changes(frame)
        if not advances:
            self.seen = 0  # a repeated frame or video, for example for timing
        if not goes_on:
            self.blocks.clear()
            self.num_frames = 0
            self.busy = False
            self.unsound.clear()
            self.weights = weights
            self.whole, self.matters, self.scene = WholeFrames(), Matters(), None
        self.refreshed, self.policy, self.place = False, None, None
        self.frame_id, self.signature = frame.frame_id, signature
        self.num_frames += 1
        self.seen += 1

    def _say_changes(self, frame: Frame) -> None:
        warnings.warn(
            f"Eventful: {_CHANGES} frames of stream {frame.stream!r} in a row were computed whole, "
            "because the size or dtype of the input, a weight, a module's setting or autocast "
            "differs from the frame before each time, so nothing is saved; name a stream for each "
            "size, and keep the weights in place between frames.",
            stacklevel=2,
        )

    def saw(self, x: Tensor) -> None:
        """Check whether ``x`` is finite; otherwise the stream is reset at its next frame.

        On devices other than a CPU, at the first frame after the result has arrived.
        """
        # In single precision, the sum of half-precision numbers cannot overflow.
        self.unsound.watch(torch.isfinite(x.sum(dtype=torch.float32)).logical_not())

    def memory_bytes(self) -> int:
        """Size of the state's tensors in bytes."""
        return memory_bytes([self.blocks, self.whole, self.matters, self.scene])


def memory_bytes(remembered: Any) -> int:
    """Size in bytes of the tensors in nested containers and objects; each storage counts once."""
    storages: dict[tuple, int] = {}
    pending, seen = [remembered], set()
    while pending:
        item = pending.pop()
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            storages[item.device, storage.data_ptr()] = storage.nbytes()
        elif id(item) in seen or isinstance(item, (str, bytes, int, float, type(None))):
            continue
        else:
            seen.add(id(item))
            if isinstance(item, dict):
                pending.extend(item.values())
            elif isinstance(item, (list, tuple)):
                pending.extend(item)
            else:
                pending.extend(getattr(item, "__dict__", {}).values())
    return sum(storages.values())
