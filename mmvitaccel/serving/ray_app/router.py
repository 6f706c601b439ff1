"""The router that sends a stream to its replica; one that does not answer holds up no other."""

from __future__ import annotations

from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

# A request to a replica that does not answer keeps its task until it is given up; Serve has
# two tasks for each replica, and with all of them waiting no stream would be routed
_MOST_TASKS = 10_000


latest: ConsistentHashRouter | None = None  # of this process


class StickyRouter(ConsistentHashRouter):
    """Serve's consistent-hash router with a task for each request that waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Serve pickles this class by its code, which knows a copy of this module's names
        from mmvitaccel.serving.ray_app import router

        router.latest = self

    @property
    def max_num_routing_tasks(self) -> int:
        """Most requests that are routed at a time."""
        return _MOST_TASKS


def replica_names() -> set[str]:
    """Names of the replicas that requests of this process may go to."""
    return set() if latest is None else {each.unique_id for each in latest.curr_replicas}
