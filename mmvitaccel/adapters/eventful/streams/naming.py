"""Streams of a batch's frames: set around the call, or the thread's own stream."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mmvitaccel.core.eventful.frame import Clips, Frame, current_frames, streams

#: The stream of frames that come without a name, one at a time, in the main thread. Those of every
#: other thread are a stream of their own, with a number behind.
UNNAMED = "unnamed"
_THREAD_NUMBERS = itertools.count(1)


def unnamed_stream() -> str:
    """Stream of this thread's unnamed frames."""
    main = threading.current_thread() is threading.main_thread()
    return UNNAMED if main else f"{UNNAMED} {next(_THREAD_NUMBERS)}"


class Names:
    """Stream names of one model's calls."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []  # number of open blocks that name streams

    @contextmanager
    def given(self, frames: tuple[Frame, ...]) -> Iterator[None]:
        """Name the streams of the calls in a block."""
        thread = threading.current_thread()
        self._threads.append(thread)
        try:
            with streams(frames):
                yield
        finally:
            self._threads.remove(thread)

    def frames_of(self, reader: int, unnamed: str, batch_size: int) -> tuple[Frame, ...]:
        """The named frames of a call, for a batch of ``batch_size``.

        Args:
            reader: Identity of the part that computes them.
            unnamed: Stream of an unnamed frame.
            batch_size: Number of images.

        Raises:
            ValueError: The names do not match the batch.
            RuntimeError: The frame has no name while another thread, task or generator names
                streams.
        """
        call = current_frames()
        if call is None:
            if batch_size > 1:
                raise ValueError(
                    f"Eventful: a batch of {batch_size} frames came without stream ids; name the "
                    "streams, `with handle.stream(['a', 'b', ...]):`, or in a config put "
                    "'video_id' in the meta_keys."
                )
            self._check_nobody_named_it()
            return (Frame(unnamed),)
        if isinstance(call, Clips):
            return call.take(reader, batch_size)
        lockstep = len(call) == 1 and call[0].lockstep
        if len(call) != batch_size and not lockstep:
            raise ValueError(
                f"Eventful: {len(call)} streams were named for a batch of {batch_size} frames; "
                "name one for each."
            )
        return call

    def _check_nobody_named_it(self) -> None:
        """Refuse an unnamed frame while another thread, task or generator names streams."""
        if any(thread.is_alive() for thread in self._threads):
            raise RuntimeError(
                "Eventful: a frame without a stream came in thread "
                f"{threading.current_thread().name!r} while `with handle.stream(...)` is open in "
                "another thread, task or generator; the name only applies there "
                "(asyncio.to_thread copies it, run_in_executor does not), so name the stream "
                "where the model is called."
            )
