"""The service's HTTP interface, independent of the server.

====== ========= ========================================================= =====================
Method Path      Headers                                                   Body
====== ========= ========================================================= =====================
PUT    /stream   ``x-session-id`` (the stream), ``x-stream-token``
POST   /frame    these and ``x-frame-id``; raw pixels: ``x-frame-size``    JPEG, PNG, raw RGB
DELETE /stream   as PUT
GET    /health
GET    /metrics
====== ========= ========================================================= =====================

HEAD is answered as GET; the server leaves the body out.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.frames import FrameLimits
from mmvitaccel.serving.prometheus import CONTENT_TYPE, exposition
from mmvitaccel.serving.ray_app.gateway import Gateway

#: The HTTP status of each reason for a refusal.
STATUS = {
    "name": 400,
    "unknown": 404,
    "token": 403,
    "order": 409,
    "frame": 415,
    "large": 413,
    "full": 503,
    "dropped": 503,
    "failed": 500,
    "closed": 503,
    "lost": 503,
}
# x-session-id is Ray Serve's default header for sticky sessions
STREAM, TOKEN, FRAME, SIZE = "x-session-id", "x-stream-token", "x-frame-id", "x-frame-size"
_JSON = "application/json"
_NUMBER = re.compile(r"-?\d{1,18}")
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")


class _BadHeaderError(UserError):
    """A header that does not have the form that it should have."""


class Response(NamedTuple):
    """An HTTP response.

    Attributes:
        status: HTTP status.
        content_type: Type of the body.
        body: Bytes of the body.
    """

    status: int
    content_type: str
    body: bytes


async def respond(
    gateway: Gateway,
    limits: FrameLimits,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: AsyncIterator[bytes],
) -> Response:
    """Answer a request.

    Args:
        gateway: The gateway to the streams.
        limits: Limits on the size of a frame.
        method: HTTP method, in capitals.
        path: Path of the URL, without the query.
        headers: Headers by lower-case name.
        body: Chunks of the body; they are read only up to the limit.
    """
    try:
        if (method, path) == ("POST", "/frame"):
            answer = await _frame(gateway, limits, headers, body)
            return _json(200, _shown(answer))
        if (method, path) == ("PUT", "/stream"):
            await gateway.open_stream(*_stream(headers))
            return _json(200, {"stream": headers[STREAM]})
        if (method, path) == ("DELETE", "/stream"):
            await gateway.close_stream(*_stream(headers))
            return _json(200, {"stream": headers[STREAM]})
        if (method, path) in (("GET", "/health"), ("HEAD", "/health")):
            return await _health(gateway)
        if (method, path) in (("GET", "/metrics"), ("HEAD", "/metrics")):
            text = exposition(*await gateway.reports(), gateway.counts)
            return Response(200, CONTENT_TYPE, text.encode())
    except Refused as refused:
        return _refusal(gateway, STATUS[refused.reason], str(refused), refused.reason)
    except _BadHeaderError as bad:
        return _refusal(gateway, 400, str(bad), "header")
    known = "PUT or DELETE /stream, POST /frame, GET /health or GET /metrics"
    return _refusal(gateway, 404, f"there is no {method} {path[:80]}; {known}.", "path")


def _refusal(gateway: Gateway, status: int, sentence: str, reason: str) -> Response:
    """Refuse a request, and count it: what is refused here reaches no replica's counts."""
    gateway.counts["refused_requests"] += 1
    return _json(status, {"error": sentence, "reason": reason})


async def _frame(
    gateway: Gateway,
    limits: FrameLimits,
    headers: Mapping[str, str],
    body: AsyncIterator[bytes],
) -> Answer:
    stream, token = _stream(headers)
    number = headers.get(FRAME, "")
    if not _NUMBER.fullmatch(number):
        raise _BadHeaderError(
            f"invalid header {FRAME}: {number[:40]!r}; give the frame's number, an integer of at "
            "most 18 digits."
        )
    size = None
    if SIZE in headers:
        found = _SIZE.fullmatch(headers[SIZE])
        if found is None:
            raise _BadHeaderError(
                f"invalid header {SIZE}: {headers[SIZE][:40]!r}; give it as 640x480."
            )
        size = (int(found[1]), int(found[2]))
    length = headers.get("content-length", "0")
    limits.check_bytes(int(length) if _NUMBER.fullmatch(length) else 0)
    content = bytearray()
    async for part in body:
        content += part
        limits.check_bytes(len(content))
    return await gateway.submit(stream, int(number), bytes(content), token, size)


def _stream(headers: Mapping[str, str]) -> tuple[str, str]:
    return headers.get(STREAM, ""), headers.get(TOKEN, "")


async def _health(gateway: Gateway) -> Response:
    """200 if a replica answers, else 503; replicas that do not answer are named."""
    try:
        reports, silent = await gateway.reports()
    except Refused:
        reports, silent = {}, []
    said = {"replicas": len(reports), "silent": silent}
    return _json(200 if reports else 503, said)


def _shown(answer: Answer) -> dict[str, Any]:
    return {**vars(answer), "output": lists(answer.output)}


def lists(output: Any) -> Any:
    """Arrays as nested lists, as JSON takes them."""
    if isinstance(output, np.ndarray):
        return output.tolist()
    if isinstance(output, dict):
        return {str(name): lists(value) for name, value in output.items()}
    return [lists(value) for value in output] if isinstance(output, list) else output


def _json(status: int, content: Any) -> Response:
    return Response(status, _JSON, json.dumps(content).encode())
