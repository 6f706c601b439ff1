"""Streams of a running service for the Python of another process on its machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmvitaccel.errors import UserError, one_line
from mmvitaccel.extras import require
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.ray_app import loopback

require("serve", "ray")
loopback.set_variables()

import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.exceptions import RayTaskError  # noqa: E402
from ray.serve.handle import DeploymentHandle  # noqa: E402


class StreamClient:
    """Talks to the gateway of a service, without HTTP. Several threads may share it.

    Args:
        address: Of Ray, as the service prints it; ``auto`` for the one that runs here. Where this
            process is connected to Ray already, that connection is used.
        application: Its name in the service's YAML.
        answer_seconds: After so long without an answer a call is given up; more than the
            service's own ``answer_seconds``, which names the cause.

    Raises:
        UserError: No Ray is there, or no such application.
    """

    def __init__(
        self, address: str = "auto", application: str = "streams", answer_seconds: float = 90.0
    ) -> None:
        self._answer_seconds, self._connected = answer_seconds, not ray.is_initialized()
        if self._connected:
            try:
                ray.init(address=address, namespace="serve", log_to_driver=False)
            except Exception as error:  # What is wrong with an address has many names
                raise UserError(
                    f"no Ray is at {address!r} ({type(error).__name__}: {one_line(error)[:200]}); "
                    "start the service and give the address that it prints."
                ) from error
        try:
            self._gateway: DeploymentHandle = serve.get_app_handle(application)
        except Exception as error:  # Of Serve's own, one where none runs, one without it
            self.close()
            raise UserError(
                f"no application {application!r} of Ray Serve runs there "
                f"({one_line(error)[:200]}); give its name in the service's YAML."
            ) from error

    def open_stream(self, stream: str, token: str) -> None:
        """See :meth:`mmvitaccel.serving.StreamWorker.open_stream`.

        Raises:
            Refused: As there, or with the reason ``lost``.
        """
        self._call("open_stream", stream, token)

    def close_stream(self, stream: str, token: str) -> None:
        """See :meth:`mmvitaccel.serving.StreamWorker.close_stream`.

        Raises:
            Refused: As there, or with the reason ``lost``.
        """
        self._call("close_stream", stream, token)

    def submit(self, stream: str, frame_id: int, frame: bytes | np.ndarray, token: str) -> Answer:
        """The answer to a stream's next frame.

        Args:
            stream: An open stream.
            frame_id: A whole number above that of the stream's last frame.
            frame: A JPEG or PNG file, or a picture (H, W, 3) uint8 RGB.
            token: The stream's.

        Returns:
            The answer, its output in arrays of numpy.

        Raises:
            Refused: See :meth:`mmvitaccel.serving.StreamWorker.submit`; ``lost`` where a process of
                the service ended with the frame.
        """
        return self._call("submit", stream, frame_id, frame, token)

    def close(self) -> None:
        """Disconnect from Ray, if this object connected; streams stay open."""
        if self._connected:
            ray.shutdown()

    def __enter__(self) -> StreamClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _call(self, method: str, stream: str, *args: Any) -> Any:
        """Call the gateway; raises what it refuses."""
        asked = getattr(self._gateway, method).remote(stream, *args)
        try:
            return asked.result(timeout_s=self._answer_seconds)
        except Exception as error:  # An engine has many ways to say that a process ended
            if isinstance(error, RayTaskError) and isinstance(error.cause, Refused):
                raise error.cause from None
            asked.cancel()
            raise Refused(
                "lost",
                f"stream {stream!r}: the service ended or gave no answer within "
                f"{self._answer_seconds:g} s ({type(error).__name__}: {one_line(error)[:200]}); "
                "send the next frame.",
            ) from error
