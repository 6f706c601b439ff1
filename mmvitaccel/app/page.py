"""Handles the events of the page; its layout is in :mod:`mmvitaccel.app.blocks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from mmvitaccel.app import views
from mmvitaccel.app.guard import browser_of
from mmvitaccel.app.player import Player
from mmvitaccel.app.session import Session, Sessions
from mmvitaccel.budget.target import Target
from mmvitaccel.errors import UserError, sentence_of
from mmvitaccel.video_demo.record import Summary
from mmvitaccel.video_reader import open_video

SHARE, MILLISECONDS = "% of dense multiply-adds", "milliseconds a frame"
_EVERY = 5  # the curves are drawn on every fifth frame


class Request(Protocol):
    """The attributes of a gradio request that are used."""

    session_hash: str
    headers: Mapping[str, str]


class Page:
    """Handles the events of the page.

    Args:
        player: Runs the models.
        sessions: The sessions of the server.
        clips: Files by title, which all sessions can choose.
        said: A message that is shown when the page is loaded.
    """

    def __init__(
        self, player: Player, sessions: Sessions, clips: Mapping[str, Path], said: str = ""
    ) -> None:
        self.player, self.sessions, self.clips, self.said = player, sessions, clips, said

    def begin(self, request: Request) -> tuple[str, str]:
        """Handle loading of a page; returns its session's token and a message."""
        try:
            session = self.sessions.open(_browser(request) or "", request.session_hash)
        except UserError as error:
            return "", views.notice(str(error), wrong=True)
        return session.token, views.notice(self.said)

    def end(self, request: Request) -> None:
        """Handle closing of a page."""
        self.sessions.close(request.session_hash, _browser(request))

    def brought(self, token: str, request: Request) -> tuple[list[str], str, str]:
        """Handle an upload; returns the titles, the selected title and a message."""
        titles = list(self.clips)
        try:
            session = self.sessions.get(token, _browser(request))
        except UserError as error:
            return titles, titles[0], views.notice(str(error), wrong=True)
        own = [session.clip[0]] if session.clip else []
        return [*titles, *own], (own or titles)[0], views.notice(*session.said)

    def steer(self, token: str, unit: str, value: float, request: Request) -> str:
        """Handle the slider; returns a message."""
        try:
            session = self.sessions.get(token, _browser(request))
            session.target = _target(unit, value)
        except (UserError, ValueError) as error:
            return views.notice(str(error), wrong=True)
        return views.notice(f"budget: {session.target}")

    def stop(self, token: str, request: Request) -> str:
        """Handle the stop button; returns a message."""
        try:
            self.sessions.get(token, _browser(request)).stop()
        except UserError as error:
            return views.notice(str(error), wrong=True)
        return views.notice("stopped")

    def play(
        self,
        token: str,
        clip: str,
        model: str,
        unit: str,
        value: float,
        beside: bool,
        request: Request,
    ) -> Iterator[dict[str, Any]]:
        """Handle the play button; yields the page's contents by name, frame by frame."""
        summary = Summary()
        try:
            session = self.sessions.get(token, _browser(request))
            session.target = _target(unit, value)
            video = open_video(self._file(session, clip))
            # Messages must name the clip, not its path on the server
            video.name = clip
            if model not in self.player.models:
                raise UserError(f"there is no model {model!r}; choose one from the list.")
            yield dict(notice=views.notice("measuring the model ..."))
            run = session.begin()
            with closing(self.player.play(session, run, model, video, beside)) as frames:
                for frame in frames:
                    yield self._seen(session, frame, summary)
            # After a run was stopped, another one may be playing
            if session.goes_on(run) and summary.frames:
                said = " ".join([f"{summary.text()}.", *video.notes()])
                yield dict(self._curves(session), notice=views.notice(said))
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            yield dict(notice=views.notice(sentence, wrong=True))

    def _seen(self, session: Session, frame: Any, summary: Summary) -> dict[str, Any]:
        shown = dict(picture=views.picture(frame.image), costs=views.costs(frame))
        if frame.number == 0:
            shown.update(table=views.table_link(session.token), notice=views.notice("playing"))
        if frame.number % _EVERY == 0:
            shown.update(self._curves(session))
        summary.add(frame)
        return shown

    @staticmethod
    def _curves(session: Session) -> dict[str, Any]:
        return dict(
            milliseconds=views.curves(session.rows, "milliseconds", "milliseconds"),
            macs=views.curves(session.rows, "macs", "G multiply-adds", 1e9),
        )

    def _file(self, session: Session, clip: str) -> Path:
        """The file of a title, among the common clips and the session's own."""
        own = dict([session.clip]) if session.clip else {}
        path = {**self.clips, **own}.get(clip)
        if path is None:
            raise UserError(f"there is no clip {clip!r}; choose one from the list.")
        return path


def _browser(request: Request) -> str | None:
    return browser_of(request.headers.get("cookie", ""))


def _target(unit: str, value: float) -> Target:
    return Target("share", value / 100) if unit == SHARE else Target("milliseconds", value)
