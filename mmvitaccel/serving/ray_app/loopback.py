"""Ray on this machine alone: none of its ports is reached from another one.

Ray finds out an address of the machine that others reach, and its processes listen on all of them.
On Windows and macOS it does not; a variable of Ray's lets it behave as there.
"""

from __future__ import annotations

import os
from typing import Any

ADDRESS = "127.0.0.1"
#: Read when ray is imported, here and in the processes that Ray starts.
VARIABLES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_ALL = "[::]:"


def set_variables() -> None:
    """Set the variables; call it before ray is imported."""
    os.environ.update(VARIABLES)


def bind_replica() -> None:
    """Let the server in a replica's own process, by which others call it, listen here alone.

    Ray Serve 2.60 gives it all addresses, without an option. Called while the replica is made,
    before that server is.

    Raises:
        RuntimeError: This ray has no such place, so that nobody knows where it would listen.
    """
    from ray.serve._private import replica

    listen = getattr(replica, "add_port_to_grpc_server", None)
    if listen is None:
        raise RuntimeError(
            "this version of Ray Serve starts the server of a replica in another way, and it may "
            "listen on all addresses; install the version that the extra 'serve' pins."
        )
    if getattr(listen, "_here_alone", False):
        return

    def here(server: Any, address: str) -> int:
        port = address.removeprefix(_ALL) if address.startswith(_ALL) else None
        return listen(server, address if port is None else f"{ADDRESS}:{port}")

    here._here_alone = True
    replica.add_port_to_grpc_server = here
