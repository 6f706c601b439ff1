"""The Ray Serve application: a gateway in front of replicas with one model each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from mmvitaccel.extras import require
from mmvitaccel.serving.ray_app import loopback

require("serve", "ray")
loopback.set_variables()

import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.config import RequestRouterConfig  # noqa: E402
from ray.serve.handle import DeploymentHandle  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402

from mmvitaccel.serving.ray_app.gateway import Gateway, Said, collect  # noqa: E402
from mmvitaccel.serving.ray_app.http import respond  # noqa: E402
from mmvitaccel.serving.ray_app.replica import Replica, Reply  # noqa: E402
from mmvitaccel.serving.ray_app.router import StickyRouter, replica_names  # noqa: E402
from mmvitaccel.serving.ray_app.settings import ServiceSettings  # noqa: E402

# The worker refuses what is too much and says so; in a queue of Ray's, frames of a live
# video would only grow old
_MANY = 10_000
# Whoever waits for a batch was told long ago that there is no answer
_HANGS = 3  # times ``answer_seconds``
#: A stream goes to its own replica or waits for it; no other replica has its state.
STICKY = RequestRouterConfig(
    request_router_class=StickyRouter,
    request_router_kwargs={"num_fallback_replicas": 0},
)


@serve.deployment(
    name="Streams",
    request_router_config=STICKY,
    max_ongoing_requests=_MANY,
    graceful_shutdown_timeout_s=5,
    health_check_period_s=2,
)
class StreamReplica(Replica):
    """A :class:`Replica` as a Ray Serve deployment."""

    def __init__(self, settings: dict[str, Any]) -> None:
        service = _settled(settings)
        name = serve.get_replica_context().replica_id.unique_id
        super().__init__(name, service.worker, _HANGS * service.answer_seconds)

    def __del__(self) -> None:
        if hasattr(self, "worker"):
            self.worker.close()


def _settled(settings: dict[str, Any]) -> ServiceSettings:
    """The settings, in a process that listens where they say, from before its server is made."""
    service = ServiceSettings(**settings)
    if not service.network:
        loopback.check_ray()
        loopback.bind_replica()
    return service


class _Sticky:
    """Calls the replicas through a Ray Serve handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def call(self, stream: str, method: str, *args: Any) -> Reply:
        """See :class:`~mmvitaccel.serving.ray_app.gateway.Replicas`."""
        return await self._handle.options(method_name=method, session_id=stream).remote(*args)

    async def broadcast(self, seconds: float, method: str, *args: Any) -> Said:
        """See :class:`~mmvitaccel.serving.ray_app.gateway.Replicas`."""
        called = self._handle.broadcast(method, *args)
        # results_async gives the results of all replicas, or none
        sent = await asyncio.wait_for(called._fetch_replica_results_async(), seconds)
        return await collect((each.get_async() for each in sent), replica_names(), seconds)


@serve.deployment(name="Gateway", max_ongoing_requests=_MANY, ray_actor_options={"num_cpus": 0})
class StreamGateway(Gateway):
    """The :class:`Gateway` over HTTP."""

    def __init__(self, streams: DeploymentHandle, settings: dict[str, Any]) -> None:
        service = _settled(settings)
        super().__init__(_Sticky(streams), service.answer_seconds, service.report_seconds)
        self._limits = service.limits

    async def __call__(self, request: Request) -> Response:
        """Answer a request; see :mod:`mmvitaccel.serving.ray_app.http`."""
        parts: AsyncIterator[bytes] = request.stream()
        said = await respond(
            self, self._limits, request.method, request.url.path, request.headers, parts
        )
        return Response(said.body, said.status, media_type=said.content_type)


def build(args: dict[str, Any]) -> serve.Application:
    """The application, for ``import_path: mmvitaccel.serving.ray_app:build``.

    Args:
        args: The YAML's ``args``, those of :class:`ServiceSettings`.

    Raises:
        ValueError: An argument is unknown or invalid.
        UserError: Ray is running already and can be reached from other machines.
    """
    service = ServiceSettings(**args)
    if ray.is_initialized() and not service.network:
        loopback.check_ray()
    settings = service.model_dump()
    streams = StreamReplica.options(
        num_replicas=service.replicas, ray_actor_options={"num_cpus": service.cpus}
    ).bind(settings)
    return StreamGateway.bind(streams, settings)
