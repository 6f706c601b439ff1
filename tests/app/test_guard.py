"""What a browser may ask the server for, without gradio behind it."""

from __future__ import annotations

import asyncio

import pytest

from mmvitaccel.app.guard import COOKIE, POLICY, Guard, browser_of

ONE, OTHER = "1" * 64, "2" * 64


class Inner:
    """Answers everything, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})


@pytest.fixture
def guard():
    return Guard(Inner(), ("/clip/",))


def ask(guard, path, browser=None, method="GET", query=""):
    """Status and headers of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    cookies = [] if browser is None else [(b"cookie", f"{COOKIE}={browser}".encode())]
    scope = dict(
        type="http", path=path, method=method, query_string=query.encode(), headers=cookies
    )
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/tmp/gradio/clip.mp4",
        "/gradio_api/file/tmp/gradio/clip.mp4",
        "/file=/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api/run/play",
        "/gradio_api/call/play",
        "/gradio_api/proxy=http://192.0.2.1/",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/info",
        "/gradio_api/cancel",
        "/monitoring",
        "/docs",
        "/gradio_api/queue/status",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_that_the_page_does_not_need_is_refused(guard, path, method):
    assert ask(guard, path, ONE, method)[0] == 404
    assert guard._app.asked == []


def test_a_browser_gets_a_cookie_once_and_loads_from_here_alone(guard):
    status, headers = ask(guard, "/")
    assert status == 200
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert headers[b"content-security-policy"] == POLICY.encode()
    assert "http" not in POLICY
    given = browser_of(cookie.partition(";")[0])
    assert len(given) == 64
    assert b"set-cookie" not in ask(guard, "/", given)[1]
    assert ask(guard, "/")[1][b"set-cookie"].decode() != cookie


def test_another_browser_does_not_hear_a_session(guard):
    heard = ("/gradio_api/queue/data", "/gradio_api/heartbeat/abc")
    query = "session_hash=abc"
    assert [ask(guard, path, None, query=query)[0] for path in heard] == [403, 403]
    assert [ask(guard, path, ONE, query=query)[0] for path in heard] == [200, 200]
    assert [ask(guard, path, OTHER, query=query)[0] for path in heard] == [403, 403]
    assert ask(guard, heard[0], OTHER, query="session_hash=other")[0] == 200
    assert ask(guard, "/gradio_api/queue/join", None, "POST")[0] == 403
    assert ask(guard, "/gradio_api/queue/join", OTHER, "POST")[0] == 200


def test_pages_are_read_and_own_addresses_pass(guard):
    assert ask(guard, "/assets/index.js")[0] == 200
    assert ask(guard, "/", ONE, "POST")[0] == 405
    assert ask(guard, "/clip/token", None, "PUT")[0] == 200


@pytest.mark.parametrize("cookies", ["", f"{COOKIE}=short", "other=1", f"{COOKIE}", "\x00=;;"])
def test_cookies_that_name_no_browser(cookies):
    assert browser_of(cookies) is None
