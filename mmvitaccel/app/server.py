"""The server of the page: its own routes and gradio, both behind the guard."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmvitaccel.app.guard import Guard
from mmvitaccel.app.page import Page
from mmvitaccel.errors import UserError
from mmvitaccel.extras import require

MOST_AT_ONCE = 8  # most clips that are played at the same time


def listen(host: str, port: int) -> socket.socket:
    """Bind the port, before anything slow is done.

    Raises:
        UserError: The port is in use, or the address is not one of this machine.
    """
    if not 0 <= port < 65536:
        raise UserError(f"--port {port}: give a number from 0 to 65535; 0 means any free port.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {port} of {host} is in use; give another --port, or 0 for any free port."
            ) from error
        reason = error.strerror or str(error)
        raise UserError(f"--host {host}, --port {port}: {reason}; give another.") from error


def application(page: Page, folder: Path, most_bytes: int) -> Any:
    """The page as an ASGI application.

    Args:
        page: Handles the page's events.
        folder: Folder for gradio's temporary files.
        most_bytes: Largest clip that is accepted.

    Raises:
        UserError: gradio is not installed.
    """
    # gradio reads these variables on import
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    require("app", "gradio")
    import gradio
    from fastapi import FastAPI

    from mmvitaccel.app.addresses import CLIP, TABLE, addresses
    from mmvitaccel.app.blocks import CSS, build, theme

    inner = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    inner.include_router(addresses(page.sessions, most_bytes))
    gradio.mount_gradio_app(
        inner,
        build(page, MOST_AT_ONCE),
        path="/",
        theme=theme(),
        css=CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
    )
    return Guard(inner, (CLIP, TABLE))


def serve(app: Any, listening: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    with suppress(KeyboardInterrupt):  # Ctrl-C is the regular way to stop it
        uvicorn.Server(_settings(app)).run(sockets=[listening])


@contextmanager
def served(app: Any, listening: socket.socket) -> Iterator[str]:
    """Serve in another thread, inside a ``with`` block; yields the page's URL."""
    import uvicorn

    server = uvicorn.Server(_settings(app))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listening]))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join()


def address_of(listening: socket.socket) -> str:
    """The page's URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _settings(app: Any) -> Any:
    import uvicorn

    # An open page keeps its connections, and the shutdown would wait for them
    return uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
