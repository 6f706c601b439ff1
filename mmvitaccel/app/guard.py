"""Restricts browsers to the page's own URLs and to their own sessions."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

COOKIE = "mmvitaccel_app"
# The requests that the page makes. All others are refused: gradio serves files to anyone who knows
# their URL, stores uploads in a folder that all sessions share, and has an API for its functions.
_PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"}
_FOLDERS = ("/assets/", "/static/")
_API = {"/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/startup-events"}
_HEARTBEAT = "/gradio_api/heartbeat/"
# Keeps the browser from loading what gradio would load from other hosts
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; form-action 'self'; "
    "base-uri 'self'; frame-ancestors 'none'; object-src 'none'"
)
_MOST_SESSIONS = 10_000  # gradio sessions whose browser is remembered
_SECONDS = 7 * 86400  # lifetime of a cookie

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware that gives each browser a cookie and restricts it to its own sessions.

    Args:
        app: The application behind it.
        own: Prefixes of paths, each ending in a slash, for which the application checks the cookie.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], own: tuple[str, ...]) -> None:
        self._app, self._own = app, own
        self._browsers: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Callable, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "websocket":
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = browser_of(_header(scope, b"cookie"))
        refused = self._refused(scope, known)
        if refused:
            await _answer(send, refused)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(known)]
            await send(message)

        await self._app(scope, receive, sending)

    def _refused(self, scope: Scope, browser: str | None) -> int:
        """The HTTP status of a refusal; 0 if the request is allowed."""
        path = scope["path"]
        if path in _PAGES or path.startswith(_FOLDERS):
            return 0 if scope["method"] in ("GET", "HEAD") else 405
        if path.startswith(self._own):
            return 0
        session = None
        if path.startswith(_HEARTBEAT):
            session = path.removeprefix(_HEARTBEAT)
        elif path == "/gradio_api/queue/data":
            session = parse_qs(scope["query_string"].decode()).get("session_hash", [""])[0]
        elif path not in _API:
            return 404
        if browser is None:
            return 403
        return 0 if session is None or self._is_of(session, browser) else 403

    def _is_of(self, session: str, browser: str) -> bool:
        """Whether a session is the browser's; a new session becomes the browser's."""
        owner = self._browsers.setdefault(session, browser)
        self._browsers.move_to_end(session)
        while len(self._browsers) > _MOST_SESSIONS:
            self._browsers.popitem(last=False)
        return owner == browser


def browser_of(cookies: str) -> str | None:
    """The browser's id in a cookie header; None if there is none."""
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None and len(found.value) >= 32 else None


def _header(scope: Scope, name: bytes) -> str:
    return "; ".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _headers(known: str | None) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-security-policy", POLICY.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if known is None:
        cookie = f"{COOKIE}={secrets.token_hex(32)}; Path=/; Max-Age={_SECONDS}"
        headers.append((b"set-cookie", f"{cookie}; HttpOnly; SameSite=Strict".encode()))
    return headers


async def _answer(send: Send, status: int) -> None:
    text = {403: b"another browser's session", 404: b"not found", 405: b"not allowed"}[status]
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
