"""Refuse the network to a process of tests: only loopback and sockets of the machine itself."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOK_UP = ("socket.getaddrinfo", "socket.gethostbyname")


class NetworkRefusedError(RuntimeError):
    """Something asked for an address outside this machine.

    No ``OSError``: code that carries on without a network must not take it for a lost connection.
    """


refused: list[str] = []
"""What was refused since the list was last cleared, also where the caller dropped the error."""

_hooked = False


def refuse_network() -> None:
    """Refuse, from now on and in forked processes too, what Python code sends off this machine.

    Connections, datagrams and look-ups of names are refused unless they are for loopback, an
    unspecified address or this host's own name. Unix sockets pass. Libraries that open sockets in C
    or C++ themselves (FFmpeg, gloo) are not seen.

    A hook cannot be taken off again; calling this twice adds it once.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_refuse)
        _hooked = True


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in _TO_ADDRESS:
        sock, address = args
        # reason: without an address, it goes where an earlier connect went
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
