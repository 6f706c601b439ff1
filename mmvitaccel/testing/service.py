"""A streaming service that is started for tests and load tests, and a small model for it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.core.eventful.gates.shared import SharedTopK
from mmvitaccel.serving.model import Prepared
from mmvitaccel.serving.tensor_model import TensorModel
from mmvitaccel.testing.models import vitdet

SIZE = (32, 48)
SHAPE = (3, *SIZE)
NUM_TOKENS = 4 * 6
K = 6
PATIENCE = 240  # seconds; long enough for a busy machine
TOKEN = "secret"
ROOT = Path(__file__).parents[2]


def small_vitdet() -> nn.Module:
    """Build a ViTDet with two blocks for 32 x 48 pixels; its weights are always the same."""
    torch.manual_seed(0)
    model = vitdet(
        img_size=48, patch_size=8, embed_dim=32, depth=2, num_heads=2, window_size=3,
        window_block_indexes=(0,), pretrain_img_size=32,
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def as_tensor(picture: np.ndarray) -> Tensor:
    """Convert an image (H, W, 3) uint8 to the model's input (3, H, W) float32."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 64 - 2


class TellingModel(TensorModel):
    """Returns the model's output, followed by the tokens that passed, (blocks, gates, 1, N)."""

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """See :class:`~mmvitaccel.serving.model.ServedModel`."""
        outs = super().run(batch)
        return [[*out, passed] for out, passed in zip(outs, self.handle.passed_tokens())]


def make(max_streams: int = 8) -> TellingModel:
    """Build the model with one budget that all streams share.

    Args:
        max_streams: Maximum number of streams with state.
    """
    model = small_vitdet()
    handle = apply_eventful(model, SharedTopK(K), max_streams=max_streams)
    return TellingModel(model, SHAPE, handle, as_tensor)


class _Replay:
    """A policy that replays recorded selections, gate by gate."""

    def __init__(self) -> None:
        self.coming: list[Tensor] = []

    def select(self, error: Tensor) -> Tensor:
        return self.coming.pop(0).nonzero()[:, 1][None]


class Alone:
    """A single stream in its own model, which passes given tokens."""

    def __init__(self) -> None:
        self._replay, model = _Replay(), small_vitdet()
        handle = apply_eventful(model, self._replay, max_streams=1)
        self._model = TensorModel(model, SHAPE, handle, as_tensor)

    def difference(self, picture: np.ndarray, output: Sequence[Any], whole: bool) -> float:
        """Return the largest absolute difference of an output to that of the stream alone.

        Args:
            picture: The frame, (H, W, 3) uint8.
            output: Output of a :class:`TellingModel`, as arrays or nested lists.
            whole: Whether the frame is computed completely; the state is then reset first.
        """
        *features, passed = output
        if whole:
            self._model.handle.reset("alone")
        self._replay.coming = [] if whole else list(torch.tensor(passed).bool().flatten(0, 1))
        with torch.no_grad(), self._model.handle.stream("alone"):
            (own,) = self._model.run([self._model.prepare(picture)])
        pairs = zip(features, own)
        return max(float(np.abs(np.asarray(found) - x.numpy()).max()) for found, x in pairs)


def service_yaml(port: int, args: Mapping[str, Any]) -> str:
    """Return the YAML of ``configs/serving`` with another port and other arguments."""
    text = (ROOT / "configs" / "serving" / "detector.yaml").read_text()
    head = text[: text.index("    args:")].replace("port: 8000", f"port: {port}")
    head = head.replace("request_timeout_s: 60", f"request_timeout_s: {PATIENCE}")
    # On a busy machine, a late answer is not a lost one.
    patient = dict(answer_seconds=PATIENCE, report_seconds=PATIENCE)
    return f"{head}    args: {json.dumps({**patient, **args})}\n"


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Service:
    """A process that serves a YAML.

    Args:
        folder: Folder for its files. Its path must be short, because paths of sockets are limited.
        args: Arguments of the application.
        command: Command to which the path of the YAML is appended; None for the package's own.
        threads: OpenMP threads of each process.

    Attributes:
        process: The process.
        port: HTTP port on this machine.
        env: Environment of the process.
    """

    def __init__(
        self,
        folder: Path,
        args: Mapping[str, Any],
        command: Sequence[str] | None = None,
        threads: int = 1,
    ) -> None:
        self.port, self._log = free_port(), folder / "log.txt"
        (folder / "service.yaml").write_text(service_yaml(self.port, args))
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.env = {**os.environ, "PYTHONPATH": path, "RAY_TMPDIR": str(folder)}
        # On a busy machine a proxy answers late, and Ray would consider it dead.
        for check in ("READY", "HEALTH"):
            self.env[f"RAY_SERVE_PROXY_{check}_CHECK_TIMEOUT_S"] = str(PATIENCE)
        # Ray's workers have a low priority by default and may never run on a busy machine.
        self.env["RAY_worker_niceness"] = "0"
        self.env["OMP_NUM_THREADS"] = str(threads)
        if command is None:
            options = ["--cpus", "2", "--object-store-megabytes", "80"]
            command = [sys.executable, "-m", "mmvitaccel.serving.ray_app", *options]
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, str(folder / "service.yaml")],
                env=self.env, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            )  # fmt: skip
        self._args = args

    @property
    def address(self) -> str:
        """Address of its Ray cluster, as the command printed it."""
        return re.findall(r"^Ray is at (\S+)$", self._log.read_text(), re.M)[0]

    def wait_until_ready(self) -> None:
        """Wait until every replica answers.

        Raises:
            RuntimeError: See :meth:`wait_until`.
        """
        wanted = (200, {"replicas": self._args["replicas"], "silent": []})
        self.wait_until(lambda: self.ask("GET", "/health") == wanted, "a start")

    def wait_until(self, true: Any, what: str) -> None:
        """Wait until a condition holds.

        Args:
            true: Returns whether it holds; an OSError counts as no.
            what: Name of the condition, for the error.

        Raises:
            RuntimeError: If it does not hold within 240 seconds, or if the process or the
                application ends. The message contains the end of the log.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if true():
                    return
            except OSError:
                pass
            if "failed with exception" in self._log.read_text():
                break
            time.sleep(0.2)
        raise RuntimeError(f"{what} did not come about:\n{self._log.read_text()[-4000:]}")

    def ask(
        self,
        method: str,
        path: str,
        stream: str = "",
        number: int | None = None,
        body: bytes | None = None,
        token: str = TOKEN,
        **headers: str,
    ) -> tuple[int, Any]:
        """Send a request and return the status and the content of the answer.

        Args:
            method: HTTP method.
            path: Path of the URL.
            stream: Name of the stream.
            number: Number of the frame; None for requests without a frame.
            body: Body of the request.
            token: Token of the stream.
            **headers: More headers.

        Returns:
            The status, and the content: decoded JSON, else text.
        """
        given = {"x-session-id": stream, "x-stream-token": token, **headers}
        if number is not None:
            given["x-frame-id"] = str(number)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = (response.getheader("content-type") or "").startswith("application/json")
        is_json = is_json and method != "HEAD"
        return response.status, json.loads(content) if is_json else content.decode()

    def stop(self) -> None:
        """Stop the process as Ctrl-C does; kill it after 60 seconds."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
