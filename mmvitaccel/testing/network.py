"""Blocking of network access in tests: only loopback and Unix sockets are allowed."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOK_UP = ("socket.getaddrinfo", "socket.gethostbyname")


class NetworkRefusedError(RuntimeError):
    """Raised if code tries to reach an address outside this machine.

    It is not an ``OSError``, so code that handles a missing network does not hide it.
    """


refused: list[str] = []
"""Messages of all refused accesses since the list was last cleared, caught errors included."""

_hooked = False


def refuse_network() -> None:
    """Block network access by Python code in this process and in processes forked from it.

    Connections, datagrams and name look-ups are refused unless they are for loopback, an
    unspecified address or this host's own name. Unix sockets are allowed. Sockets that libraries
    open in C or C++ (FFmpeg, gloo) are not detected.

    The audit hook cannot be removed; further calls have no effect.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_refuse)
        _hooked = True


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in _TO_ADDRESS:
        sock, address = args
        # Without an address, the data goes to the address of an earlier connect.
        if sock.family not in _INTERNET or not isinstance(address, tuple):
            return
        host = address[0]
    elif event in _LOOK_UP:
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, (bytes, bytearray)) else host
    if not _is_here(host):
        message = (
            f"{event.partition('.')[2]} to {host!r} was refused: tests use no network; make the "
            "data in the test, or serve it on 127.0.0.1"
        )
        refused.append(message)
        raise NetworkRefusedError(message)


def _is_here(host: str | None) -> bool:
    if not host or host == "localhost" or host == socket.gethostname():
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
