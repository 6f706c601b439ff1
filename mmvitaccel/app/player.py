"""Runs models for several sessions, one frame at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from mmvitaccel.app.session import Session
from mmvitaccel.video_demo import DemoFrame, VideoDemo
from mmvitaccel.video_reader import Video


class Player:
    """Plays clips for sessions.

    Each run has its own copy of the model on shared weights, with its own streams, policy and
    budget, so that no session can see or steer another. Frames of all runs are computed one at a
    time, so that the time of a frame includes no other frame.

    Args:
        models: Detectors by name. Only copies of them are run.
    """

    def __init__(self, models: Mapping[str, VideoDemo]) -> None:
        self.models = models
        self._computing = threading.Lock()

    def play(
        self, session: Session, run: int, model: str, video: Video, beside: bool
    ) -> Iterator[DemoFrame]:
        """Play a video under the session's budget, until the video or the run ends.

        Args:
            session: The session.
            run: The run's number, from :meth:`Session.begin`.
            model: Name of the detector.
            video: The video; closed at the end.
            beside: Whether the detector without Eventful is drawn too.

        Raises:
            UserError: The video cannot be read, or the model fails on it.
        """
        with self._computing:
            demo = self.models[model].apart()
        demo.target, demo.beside = session.target, beside
        frames = demo.play(video)
        try:
            while session.goes_on(run):
                with self._computing:
                    if demo.budget is not None and demo.budget.target != session.target:
                        demo.budget.set_target(session.target)
                    frame = next(frames, None)
                if frame is None:
                    return
                session.note(run, frame)
                yield frame
        finally:
            frames.close()
