"""The server over HTTP: with a session's cookie, without it, and from another session."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import quote, urlsplit

import pytest

from mmvitaccel.app.__main__ import main
from mmvitaccel.app.guard import COOKIE
from mmvitaccel.app.server import listen
from mmvitaccel.errors import UserError
from tests.app.conftest import MOST_BYTES, write_clip

needs_app = pytest.mark.extras("app", "gradio")
ME, YOU = "a" * 64, "b" * 64


def ask(server, method, path, browser=None, body=None, **headers):
    """Status, headers and body of an answer."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if browser is not None:
        headers["Cookie"] = f"{COOKIE}={browser}"
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def bring(server, session, content, name="clip.mp4", browser=ME):
    return ask(server, "PUT", f"/clip/{session.token}", browser, content, X_Name=quote(name))[0]


@pytest.fixture
def session(server):
    request = SimpleNamespace(session_hash="page", headers={"cookie": f"{COOKIE}={ME}"})
    token, said = server.page.begin(request)
    assert "hello" in said
    yield server.page.sessions.get(token, ME)
    server.page.end(request)


@pytest.fixture
def content(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 3, 5).read_bytes()


@needs_app
def test_a_clip_can_be_had_by_nobody(server, session, content):
    assert bring(server, session, content, "мой клип.mp4") == 204
    title, path = session.clip
    assert title == "мой клип.mp4 (yours)" and path.read_bytes() == content
    assert session.said == (f"{title} is ready; press play.", False)
    for address in (
        f"/gradio_api/file={path}",
        f"/gradio_api/file/{path}",
        f"/file={path}",
        f"/clip/{session.token}",
        f"/clip/{session.token}/{path.name}",
        f"/static/{path}",
        f"/static/../../../../../../..{path}",
        f"/assets/{quote('../' * 12, safe='')}{path}",
    ):
        for browser in (None, YOU, ME):
            status, _, body = ask(server, "GET", address, browser)
            assert status in (403, 404, 405), address
            assert content not in body


@needs_app
def test_another_browser_brings_no_clip_and_takes_no_table(server, session, content):
    run = session.begin()
    session.note(run, SimpleNamespace(row=lambda: dict(frame=0, macs=1.5)))
    for browser in (None, YOU):
        assert bring(server, session, content, browser=browser) == 404
        assert ask(server, "GET", f"/table/{session.token}", browser)[0] == 404
    assert session.clip is None
    status, headers, body = ask(server, "GET", f"/table/{session.token}", ME)
    assert (status, body) == (200, b"frame,macs\r\n0,1.5\r\n")
    assert headers["content-type"].startswith("text/csv")
    assert headers["cache-control"] == "no-store"


@needs_app
def test_broken_and_large_clips_are_refused_and_not_kept(server, session, content):
    assert bring(server, session, content) == 204
    kept = session.clip
    assert bring(server, session, content[: len(content) // 2], "half.mp4") == 422
    sentence, wrong = session.said
    assert wrong and sentence.startswith("half.mp4 cannot be opened as a video: it is an MP4")
    assert bring(server, session, bytes(MOST_BYTES + 1), "large.mp4") == 422
    assert session.said == (
        "large.mp4 is larger than the limit of 0.1907 MiB; cut it, or start the server with a "
        "larger --most-upload.",
        True,
    )
    assert session.clip == kept and [*session.folder.iterdir()] == [kept[1]]


@needs_app
def test_gradio_takes_no_file_and_asks_nobody(server):
    boundary = (
        "--x\r\nContent-Disposition: form-data; name=files; filename=a.mp4\r\n\r\nhere\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x"
    assert ask(server, "POST", "/gradio_api/upload", ME, boundary, Content_Type=kind)[0] == 404
    status, headers, body = ask(server, "GET", "/")
    assert status == 200
    assert b"fonts.googleapis" not in body and b"fonts.gstatic" not in body
    assert "default-src 'self'" in headers["content-security-policy"]
    config = body.decode()
    assert '"analytics_enabled":false' in config.replace(" ", "")
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    style = ask(server, "GET", "/theme.css")[2]
    assert b"system-ui" in style and b"@import" not in style


def test_a_port_in_use_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^--port {port} of 127\.0\.0\.1 is in use; give another"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"^--port 70000: give a number from 0 to 65535"):
        listen("127.0.0.1", 70000)
    with pytest.raises(UserError, match=r"^--host no:such, --port 0: .*; give another"):
        listen("no:such", 0)


@needs_app
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--most-upload", "0"], "--most-upload 0: give a finite number of MiB above 0"),
        (["--most-upload", "inf"], "--most-upload inf: give a finite number of MiB above 0"),
        (["--k", "5"], "--k 5 is for a --model without Eventful"),
        (["--clip", "gone.mp4"], "the video gone.mp4 does not exist"),
        (["--model", "gone.py", "gone.pth"], "gone.py"),
        (["--port", "x"], "invalid int value"),
    ],
)
def test_mistakes_end_in_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, *([] if "--port" in arguments else ["--port", "0"])])
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr("mmvitaccel.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "pip install 'mmvitaccel[app]'" in capsys.readouterr().err


@needs_app
def test_gradio_is_imported_by_the_server_alone():
    code = "import mmvitaccel, mmvitaccel.app.server, mmvitaccel.app.page, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gradio" not in done.stdout.split()
