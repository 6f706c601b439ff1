"""One model for many streams; waiting frames of several streams are computed in one batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from torch import Tensor

from mmvitaccel.budget.budget import Budget
from mmvitaccel.errors import one_line
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.batches import BatchRunner, Computed
from mmvitaccel.serving.frames import FrameLimits, check_picture, read_picture
from mmvitaccel.serving.kept import KeptStreams
from mmvitaccel.serving.model import Prepared, ServedModel
from mmvitaccel.serving.open_streams import OpenStreams, tell
from mmvitaccel.serving.report import Tally, WorkerReport
from mmvitaccel.serving.stream import StreamCounts, Waiting


class StreamWorker:
    """Serves many streams with one model, each with its own state.

    Any thread may open streams and submit frames; the worker's own thread runs the model. A batch
    is the frame that has waited longest, with waiting frames of other streams of the same shape.
    Frames are checked and decoded in the thread that submits them, so a refused frame changes
    nothing. When a stream already has ``max_waiting`` waiting frames, a new frame replaces the
    oldest one: that one is counted, and its answer is a :class:`Refused` with the reason
    ``dropped``.

    Args:
        model: A :class:`TensorModel` or :class:`DetectorModel` that nothing else runs.
        budget: Held over the frames of all streams, made for the model's handle. With a
            :class:`~mmvitaccel.SharedTopK` it goes to the streams that need it. None leaves the
            policy as it is.
        max_open: Most open streams.
        max_streams: Most streams whose state is kept; the least recently used one is forgotten, and
            its next frame is computed whole. None: the handle's own limit.
        max_bytes: Most bytes of their state; None for no limit.
        max_batch: Most frames in a batch.
        max_waiting: Most waiting frames of one stream; of all streams together, at most
            ``8 * max_batch`` frames wait.
        idle_seconds: A stream without a frame for so long may be closed to make room for a new one.
        limits: Limits on the size of a frame.
        clock: Returns seconds.

    Raises:
        ValueError: A number is below 1, or ``max_streams`` is above the handle's limit.

    Examples:
        >>> with StreamWorker(DetectorModel(config, checkpoint, k=256)) as worker:
        ...     worker.open_stream("gate-3", token)
        ...     answer = worker.submit("gate-3", 0, jpeg, token).result()
        ...     print(answer.output.bboxes, answer.whole, answer.milliseconds)
    """

    def __init__(
        self,
        model: ServedModel,
        budget: Budget | None = None,
        *,
        max_open: int = 1024,
        max_streams: int | None = None,
        max_bytes: int | None = None,
        max_batch: int = 8,
        max_waiting: int = 2,
        idle_seconds: float = 600.0,
        limits: FrameLimits = FrameLimits(),  # noqa: B008
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        held = max_open if model.handle is None else model.handle.max_streams
        max_streams = held if max_streams is None else max_streams
        numbers = dict(max_open=max_open, max_streams=max_streams, max_batch=max_batch)
        numbers.update(max_waiting=max_waiting)
        if max_bytes is not None:
            numbers.update(max_bytes=max_bytes)
        for name, value in numbers.items():
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(
                    f"StreamWorker: {name}={value!r} must be an integer of at least 1."
                )
        if max_streams > held:
            raise ValueError(
                f"StreamWorker: max_streams={max_streams} is above the {held} of the model's "
                f"handle; give max_streams={max_streams} to apply_eventful too."
            )
        self.limits = limits
        self._model, self._runner = model, BatchRunner(model, budget, clock)
        self._max_batch, self._clock, self._tally = max_batch, clock, Tally()
        self._kept = KeptStreams(model.handle, max_streams, max_bytes, self._tally.evicted)
        self._streams = OpenStreams(
            max_open, max_waiting, 8 * max_batch, idle_seconds, self._tally, self._kept.drop
        )
        self._changed = threading.Condition()
        self._computing, self._closed = 0, False
        self._began: float | None = None  # when the batch in the model began
        self._thread = threading.Thread(target=self._work, name="StreamWorker", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that runs the model is alive."""
        return self._thread.is_alive()

    @property
    def busy_seconds(self) -> float:
        """How long the batch that is in the model has been there; 0 without one."""
        began = self._began
        return 0.0 if began is None else self._clock() - began

    def open_stream(self, stream: str, token: str, after: int | None = None) -> None:
        """Open a stream; if it is open with the same token, nothing changes.

        Args:
            stream: Its name: up to 64 letters, digits, ``.``, ``_`` and ``-``.
            token: The token that its frames will carry, up to 256 characters.
            after: Number of its last frame, for a stream that moved here from another worker.

        Raises:
            Refused: The name or token is invalid, the stream is open with another token, or
                ``max_open`` streams are open.
        """
        with self._changed, self._tally.refusals_counted():
            self._check_open()
            left_out = self._streams.open(stream, token, self._clock(), after)
        tell(left_out)

    def close_stream(self, stream: str, token: str) -> StreamCounts:
        """Close a stream and forget it; its waiting frames are dropped.

        Returns:
            The counts of its frames.

        Raises:
            Refused: It is not open, or has another token.
        """
        with self._changed, self._tally.refusals_counted():
            self._check_open()
            record = self._streams.of(stream, token)
            left_out = self._streams.close(record)
        tell(left_out)
        return record.counts

    def submit(
        self, stream: str, frame_id: int, frame: bytes | np.ndarray | Tensor, token: str
    ) -> Future[Answer]:
        """Submit a stream's next frame.

        Args:
            stream: An open stream.
            frame_id: An integer above that of the stream's last frame.
            frame: The bytes of a JPEG or PNG file, a picture (H, W, 3) uint8 RGB, or a tensor that
                the model accepts.
            token: The stream's token.

        Returns:
            The future of the answer. Its exception may be a :class:`Refused` with the reason
            ``dropped``, ``failed`` or ``closed``. Cancel it if the answer is no longer needed.

        Raises:
            Refused: The frame is not accepted; nothing changes.
        """
        with self._changed, self._tally.refusals_counted():
            self._check_open()
            record = self._streams.of(stream, token)
        with self._tally.refusals_counted(record.counts, self._changed), record.order:
            record.check_order(frame_id)
            arrived = self._clock()
            waiting = Waiting(record, frame_id, self._prepared(frame), arrived)
            with self._changed:
                left_out = self._streams.accept(waiting)
                self._changed.notify_all()
        tell(left_out)
        return waiting.answer

    def counts(self, stream: str, token: str) -> StreamCounts:
        """The counts of a stream's frames so far.

        Raises:
            Refused: It is not open, or has another token.
        """
        with self._changed, self._tally.refusals_counted():
            return StreamCounts(**vars(self._streams.of(stream, token).counts))

    def report(self) -> WorkerReport:
        """The worker's counts, times, streams and memory."""
        with self._changed:
            return self._tally.report(
                streams=len(self._streams.records),
                remembered=len(self._kept.bytes),
                memory_bytes=self._kept.total_bytes,
                waiting=self._streams.num_waiting + self._computing,
                missed=self._runner.missed,
            )

    def close(self) -> None:
        """Stop the worker: frames in the model are answered, waiting frames are dropped."""
        with self._changed:
            self._closed = True
            records = list(self._streams.records.values())
            left_out = [each for record in records for each in self._streams.close(record)]
            self._changed.notify_all()
        tell(left_out)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> StreamWorker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepared(self, frame: bytes | np.ndarray | Tensor) -> Prepared:
        """Decode and check a frame, and prepare it for the model."""
        if isinstance(frame, (bytes, bytearray, memoryview)):
            frame = read_picture(bytes(frame), self.limits)
        elif isinstance(frame, np.ndarray):
            frame = check_picture(frame, self.limits)
        elif not isinstance(frame, Tensor):
            raise Refused(
                "frame",
                f"the frame is a {type(frame).__name__}; give the bytes of a JPEG or PNG file, a "
                "numpy array or a tensor.",
            )
        try:
            return self._model.prepare(frame)
        except Refused:
            raise
        except Exception as error:  # A user's model may raise anything; the worker goes on
            raise Refused(
                "frame",
                f"the model cannot prepare the frame ({type(error).__name__}: {one_line(error)}); "
                "send another one.",
            ) from error

    def _check_open(self) -> None:
        if self._closed:
            raise Refused("closed", "the worker is closed; start another one.")

    def _work(self) -> None:
        """The loop of the thread that runs the model."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._streams.num_waiting)
                if self._closed:
                    return
                batch = self._streams.take(self._most)
                self._kept.make_room([frame.stream.name for frame in batch])
                self._computing = len(batch)
            if batch:
                self._began = self._clock()
                computed = self._runner.run(batch)
                self._began = None
                self._finish(computed)

    def _most(self, names: Sequence[str]) -> int:
        """How many frames of these streams may be in one batch."""
        return min(self._kept.most_together(names), self._max_batch)

    def _finish(self, computed: Sequence[Computed]) -> None:
        """Count the computed frames, then set their answers."""
        now = self._clock()
        with self._changed:
            for frame, answer, error in computed:
                if error is not None:
                    self._tally.add(frame.stream.counts, "failed")
                    continue
                self._tally.add(frame.stream.counts, "frames")
                if answer.whole:
                    self._tally.add(frame.stream.counts, "whole")
                self._tally.took(now - frame.arrived)
            for frame, _, error in computed:
                # A stream that was closed meanwhile has new state in the model
                if error is not None or not frame.stream.is_open:
                    self._kept.drop(frame.stream.name)
            kept = [(f, a) for f, a, _ in computed if a is not None and f.stream.is_open]
            self._kept.note([f.stream.name for f, _ in kept], [a.whole for _, a in kept])
            self._computing = 0
        for frame, answer, error in computed:
            if error is not None:
                frame.answer.set_exception(error)
            else:
                frame.answer.set_result(answer)
