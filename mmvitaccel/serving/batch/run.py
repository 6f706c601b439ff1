"""Runs videos on workers of Ray Data, each video on one worker, in the order of its frames."""

from __future__ import annotations

import json
import logging
import math
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmvitaccel.errors import UserError, one_line, sentence_of
from mmvitaccel.extras import require
from mmvitaccel.serving.batch.core_log import quiet_core
from mmvitaccel.serving.batch.outcome import Outcome, write_result
from mmvitaccel.serving.batch.settings import BatchSettings
from mmvitaccel.serving.batch.sources import BatchVideo
from mmvitaccel.serving.ray_app.loopback import bind_ports
from mmvitaccel.video_demo import VideoDemo

_OBJECT_STORE = 80 * 2**20  # bytes; only names pass through it, no frames
_CORES_OF_A_WORKER = 2  # by default


class VideoWorker:
    """Runs the detector on videos, one after the other, in a Ray worker.

    Args:
        settings: Settings of the detector.
        described: The same settings as the results hold them.
        out: Folder of the results.
        threads: Number of threads that the worker may use.
    """

    def __init__(
        self, settings: BatchSettings, described: dict[str, Any], out: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self._settings, self._described, self._out = settings, described, Path(out)
        self._demo: VideoDemo | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Process the video of a row; an error becomes part of its outcome."""
        video = BatchVideo(row["name"], row["path"])
        started = False

        def on_frame() -> None:
            nonlocal started
            started = True

        try:
            if self._demo is None:
                self._demo = self._settings.detector()
            outcome = write_result(
                self._demo,
                video,
                self._out,
                self._described,
                self._settings.fps,
                on_frame,
            )
        except Exception as error:  # One failed video must not stop the others
            # The model may have been interrupted within a frame; build it again
            self._demo = None
            said = sentence_of(error)
            fault = "" if said else traceback.format_exc()
            said = said or f"{type(error).__name__}: {one_line(error)} (a bug of the program)"
            outcome = Outcome(video.name, error=said, fault=fault, started=started)
        return {"outcome": json.dumps(asdict(outcome))}


def run_batch(
    videos: Sequence[BatchVideo],
    settings: BatchSettings,
    out: str | os.PathLike,
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run a detector on videos, each on one worker, and write a result for each.

    If Ray is initialized in this process, that one is used. Else Ray is started, reachable from
    this machine only, and stopped at the end.

    Args:
        videos: The videos; existing results are replaced.
        settings: Settings of the detector.
        out: Folder of the results; all workers must be able to write to it.
        workers: Number of videos that are processed at the same time; by default one per GPU, and
            without GPUs one for every two cores.
        threads: Threads per worker; by default the cores divided by the workers.
        address: Address of a running Ray cluster (``auto`` finds it); its machines need the same
            paths.
        done: Called with each outcome as soon as it is known.

    Returns:
        The outcomes, in the order of the videos.

    Raises:
        UserError: Ray is not installed or does not start, the workers do not fit, or the detector
            cannot be built.
    """
    require("serve", "ray", "pyarrow")
    for option, value in (("--workers", workers), ("--threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: give 1 or more.")
    described = settings.described()
    # A detector that cannot be built fails here, once, and not in each worker
    settings.detector()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    outcomes: dict[str, Outcome] = {}
    with _ray(address):
        size, cores, gpus = _shared_out(len(videos), workers, threads)
        made = (settings, described, str(Path(out).absolute()), cores)
        for outcome in _outcomes(videos, made, size, cores, gpus):
            outcomes[outcome.video] = outcome
            done(outcome)
    for video in videos:
        if video.name not in outcomes:
            outcomes[video.name] = Outcome(
                video.name,
                error="its worker was killed twice, probably because memory ran out; use fewer "
                "--workers.",
            )
            done(outcomes[video.name])
    return [outcomes[video.name] for video in videos]


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Use the Ray of this process or of an address, or start one on this machine."""
    if address is None:
        bind_ports()
    try:
        import ray.data
    except ImportError as error:
        raise UserError(
            f"Ray Data cannot be imported ({one_line(error)}): pip install 'mmvitaccel[serve]' "
            "(in a checkout: pip install -r requirements/serve.txt)"
        ) from error
    if ray.is_initialized():
        yield
        return
    own = dict(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE)
    try:
        with quiet_core():
            ray.init(
                **(own if address is None else dict(address=address)),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError) as error:
        where = "does not start" if address is None else f"does not answer at {address}"
        raise UserError(f"Ray {where}: {one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _shared_out(videos: int, workers: int | None, threads: int | None) -> tuple[int, int, float]:
    """The number of workers, and the cores and GPUs of each.

    Raises:
        UserError: They do not fit, so that Ray would wait forever.
    """
    import ray

    total = ray.cluster_resources()
    cores, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    size = workers or gpus or max(cores // _CORES_OF_A_WORKER, 1)
    size = min(size, videos)
    each = threads or max(cores // size, 1)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(int(node.get("CPU", 0)) // each for node in nodes)
    if size > room:
        raise UserError(
            f"--workers {size} with {each} threads each do not fit: Ray has {cores} cores on "
            f"{len(nodes)} machines, enough for {room}; give fewer workers or threads."
        )
    # Workers on one GPU need equal shares of it, or Ray cannot place the last one
    return size, each, 1 / math.ceil(size / gpus) if gpus else 0


def _outcomes(
    videos: Sequence[BatchVideo], made: tuple[Any, ...], size: int, cores: int, gpus: float
) -> Iterator[Outcome]:
    """Yield outcomes as they are known; a video whose worker was killed twice has none."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    rows = [{"name": video.name, "path": video.path} for video in videos]
    with warnings.catch_warnings():
        # Ray 2.60, which is pinned, has no other way to set the number of retries
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        played = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            VideoWorker,
            fn_constructor_args=made,
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=cores,
            num_gpus=gpus or None,
            max_restarts=-1,
            max_task_retries=1,
        )
    # iter_rows holds an outcome back until the next one is there
    for rows_done in played.iter_batches(batch_size=None, prefetch_batches=0):
        for outcome in rows_done["outcome"]:
            yield Outcome(**json.loads(str(outcome)))
