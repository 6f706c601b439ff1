"""Routes for uploads and tables, each of one session; this module imports FastAPI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from mmvitaccel.app.clips import check_clip
from mmvitaccel.app.guard import browser_of
from mmvitaccel.app.session import Session, Sessions
from mmvitaccel.errors import UserError

CLIP, TABLE = "/clip/", "/table/"
_NAME = 120  # characters of a clip's name that are shown


def addresses(sessions: Sessions, most_bytes: int) -> APIRouter:
    """Routes ``PUT /clip/TOKEN`` to upload a clip and ``GET /table/TOKEN`` to download the table.

    Both answer 404 to a browser that does not own the session. If a clip is refused, the session's
    ``said`` holds the reason.

    Args:
        sessions: The sessions of the server.
        most_bytes: Largest clip that is accepted.
    """
    router = APIRouter()

    def session_of(request: Request, token: str) -> Session | None:
        try:
            return sessions.get(token, browser_of(request.headers.get("cookie", "")))
        except UserError:
            return None

    @router.put(CLIP + "{token}")
    async def bring(token: str, request: Request) -> Response:
        session = session_of(request, token)
        if session is None:
            return Response(status_code=404)
        return Response(status_code=204 if await _take(session, request, most_bytes) else 422)

    @router.get(TABLE + "{token}")
    def table(token: str, request: Request) -> Response:
        session = session_of(request, token)
        if session is None:
            return Response(status_code=404)
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": "attachment; filename=costs.csv",
        }
        return Response(session.table(), media_type="text/csv", headers=headers)

    return router


async def _take(session: Session, request: Request, most_bytes: int) -> bool:
    """Store the clip of a request in its session; False if the clip was refused."""
    name = unquote(request.headers.get("x-name", "")).strip()[:_NAME] or "clip"
    path = session.new_file()
    try:
        await _store(request, path, name, most_bytes)
        await run_in_threadpool(check_clip, path, name)
    except UserError as error:
        session.said = (str(error), True)
        path.unlink(missing_ok=True)
        return False
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    session.take(f"{name} (yours)", path)
    return True


async def _store(request: Request, path: Path, name: str, most_bytes: int) -> None:
    """Write the body of a request to a file.

    Raises:
        UserError: It is too large, or cannot be written.
    """
    size = 0
    try:
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > most_bytes:
                    raise UserError(
                        f"{name} is larger than the limit of {most_bytes / 2**20:.4g} MiB; cut it, "
                        "or start the server with a larger --most-upload."
                    )
                file.write(part)
    except OSError as error:
        raise UserError(f"{name} could not be stored: {error.strerror or error}.") from error
