"""Binds Ray to loopback, so that other machines cannot reach its ports.

By default, Ray uses the machine's network address and its processes listen on all interfaces,
except on Windows and macOS. A variable of Ray's selects the behaviour of those systems.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any

from mmvitaccel.errors import UserError

ADDRESS = "127.0.0.1"
# Ray reads these on import, here and in the processes that it starts.
_PORTS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: Those of a service. The gateway reads the stream's name itself; Serve's proxy would answer 500 to
#: one that is not UTF-8.
VARIABLES = {
    **_PORTS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_SESSION_ID_HEADER_KEY": "x-not-used",
}
_ALL = "[::]:"


def bind_ports() -> None:
    """Let a Ray that is started here bind its ports to loopback; call it before ray is imported."""
    os.environ.update(_PORTS)


def set_variables() -> None:
    """Set the variables of a service; call it before ray is imported."""
    os.environ.update(VARIABLES)
    # A Ray that is started here asks for its token, which a process that connects to it
    # gives only where it is told to
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def check_ray() -> None:
    """Refuse a Ray that other machines reach; this process is connected to it.

    Raises:
        UserError: Its processes listen on an address of the machine that others reach.
    """
    import ray

    address = ray.util.get_node_ip_address()
    if not ip_address(address).is_loopback:
        raise UserError(
            f"Ray is at {address}, where other machines reach it; start the service by `python -m "
            "mmvitaccel.serving.ray_app SERVICE.yaml`, or set `network: true` in its args if it is "
            "meant for several machines."
        )


def bind_replica() -> None:
    """Bind the gRPC server of a replica's process to loopback.

    Ray Serve 2.60 binds it to all addresses and has no option for it. Call this in the replica's
    constructor, before that server is created.

    Raises:
        RuntimeError: This version of Ray Serve creates the server in another way.
    """
    from ray.serve._private import replica

    listen = getattr(replica, "add_port_to_grpc_server", None)
    if listen is None:
        raise RuntimeError(
            "this version of Ray Serve starts a replica's server in another way, and it may listen "
            "on all addresses; install the version that the extra 'serve' pins."
        )
    if getattr(listen, "_here_alone", False):
        return

    def here(server: Any, address: str) -> int:
        port = address.removeprefix(_ALL) if address.startswith(_ALL) else None
        return listen(server, address if port is None else f"{ADDRESS}:{port}")

    here._here_alone = True
    replica.add_port_to_grpc_server = here
