"""Sessions: whose they are, what they keep, and that nothing is left of them."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import pytest

from mmvitaccel.app import session as module
from mmvitaccel.app.session import Sessions
from mmvitaccel.errors import UserError

ENDED = r"this page's session has ended; reload the page"


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path / "sessions")


def frame(number):
    return SimpleNamespace(row=lambda: dict(frame=number, macs=2.5 * number))


def test_a_session_is_of_its_browser_alone(sessions):
    mine = sessions.open("me", "page")
    assert sessions.get(mine.token, "me") is mine
    for token, browser in ((mine.token, "you"), (mine.token, None), ("", "me"), (None, "me")):
        with pytest.raises(UserError, match=ENDED):
            sessions.get(token, browser)
    sessions.close("page", "you")
    assert sessions.get(mine.token, "me") is mine
    sessions.close("page", "me")
    with pytest.raises(UserError, match=ENDED):
        sessions.get(mine.token, "me")


def test_a_clip_goes_with_the_next_one_and_with_the_session(sessions):
    mine = sessions.open("me", "page")
    first, second = mine.new_file(), mine.new_file()
    for path in (first, second):
        path.write_bytes(b"clip")
        mine.take(path.name, path)
    assert mine.folder.stat().st_mode & 0o077 == 0
    assert not first.exists() and second.exists() and mine.clip == (second.name, second)
    run = mine.begin()
    sessions.close("page", "me")
    assert not mine.folder.exists() and not mine.goes_on(run)


def test_a_new_run_ends_the_one_before_and_begins_the_table(sessions):
    mine = sessions.open("me", "page")
    first = mine.begin()
    mine.note(first, frame(0))
    second = mine.begin()
    mine.note(first, frame(1))
    mine.note(second, frame(2))
    assert not mine.goes_on(first) and mine.goes_on(second)
    assert list(csv.DictReader(io.StringIO(mine.table()))) == [dict(frame="2", macs="5.0")]
    mine.stop()
    assert not mine.goes_on(second)


def test_tables_and_sessions_are_bounded(sessions, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    mine = sessions.open("me", "a")
    assert mine.rows.maxlen is not None
    sessions.open("me", "b")
    with pytest.raises(UserError, match="2 pages are open, which is the limit"):
        sessions.open("you", "c")
    mine.used -= 2 * module._IDLE
    sessions.open("you", "c")
    assert len(sessions) == 2
    with pytest.raises(UserError, match=ENDED):
        sessions.get(mine.token, "me")
