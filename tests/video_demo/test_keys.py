"""Keys from a terminal, which is as before afterwards."""

from __future__ import annotations

import io
import os
import sys
import time

import pytest

from mmvitaccel.video_demo.keys import Keys

pty = pytest.importorskip("pty", reason="there are no such terminals here")
termios = pytest.importorskip("termios", reason="there are no such terminals here")


@pytest.fixture
def keyboard(monkeypatch):
    """A terminal as stdin; returns what types on it, and its settings."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda text: os.write(master, text.encode()), lambda: termios.tcgetattr(slave)
    os.close(master)


def read(keys, length):
    """What arrives, for at most two seconds."""
    found, end = "", time.monotonic() + 2
    while len(found) < length and time.monotonic() < end:
        found += keys.pressed()
    return found


def test_keys_come_without_a_new_line(keyboard):
    press, settings = keyboard
    before = settings()
    with Keys() as keys:
        assert keys.listening and keys.pressed() == ""
        press("+-")
        assert read(keys, 2) == "+-"
        assert keys.pressed() == ""
    assert settings() == before and not keys.listening


def test_terminal_is_given_back_after_an_error(keyboard):
    _, settings = keyboard
    before = settings()
    with pytest.raises(KeyboardInterrupt), Keys():
        raise KeyboardInterrupt
    assert settings() == before


def test_where_there_is_no_terminal_no_key_is_pressed(monkeypatch):
    for stdin in (None, io.StringIO("+")):
        monkeypatch.setattr(sys, "stdin", stdin)
        with Keys() as keys:
            assert not keys.listening and keys.pressed() == ""
