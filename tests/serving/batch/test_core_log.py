"""What Ray's core writes to stderr, without Ray."""

from __future__ import annotations

import os

from mmvitaccel.serving.batch.core_log import quiet_core


def test_all_but_the_line_on_the_level_is_written_after_the_block(capfd, monkeypatch):
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL", raising=False)
    try:
        with quiet_core():
            assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "fatal"
            os.write(2, b"Set ray log level from RAY_BACKEND_LOG_LEVEL to 3\nno memory left\n")
            assert capfd.readouterr().err == ""
            raise OSError
    except OSError:
        os.write(2, b"after\n")
    assert capfd.readouterr().err == "no memory left\nafter\n"
    assert "RAY_BACKEND_LOG_LEVEL" not in os.environ


def test_a_level_of_the_users_is_kept(capfd, monkeypatch):
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "debug")
    with quiet_core():
        assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "debug"
        os.write(2, b"RAY_BACKEND_LOG_LEVEL\n")
        assert capfd.readouterr().err == "RAY_BACKEND_LOG_LEVEL\n"
    assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "debug"
