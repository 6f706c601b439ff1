"""Videos over the workers of Ray Data: each whole on one worker, in the order of its frames."""

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
from mmvitaccel.serving.batch.outcome import Outcome, write_result
from mmvitaccel.serving.batch.settings import BatchSettings
from mmvitaccel.serving.batch.sources import BatchVideo
from mmvitaccel.video_demo import VideoDemo

_OBJECT_STORE = 80 * 2**20  # bytes; names go through it, frames do not
_CORES_OF_A_WORKER = 2  # where nothing is said
# reason: Ray's own switch for computers that are no cluster: its ports are then on loopback
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class VideoWorker:
    """Plays videos one after the other, on a worker of Ray's.

    Args:
        settings: What it does with them.
        described: What the results say of that.
        out: Their folder.
        threads: How many the worker may use.
    """

    def __init__(
        self, settings: BatchSettings, described: dict[str, Any], out: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self._settings, self._described, self._out = settings, described, Path(out)
        self._demo: VideoDemo | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Play the video of a row; what stops it becomes its outcome."""
        video = BatchVideo(row["name"], row["path"])
        try:
            if self._demo is None:
                self._demo = self._settings.detector()
            outcome = write_result(
                self._demo, video, self._out, self._described, self._settings.fps
            )
        except Exception as error:  # reason: the next video is another one
            # reason: a model that was left in mid-frame is not used again
            self._demo = None
            said = sentence_of(error)
            fault = "" if said else traceback.format_exc()
            said = said or f"{type(error).__name__}: {one_line(error)} (a fault of the program)"
            outcome = Outcome(video.name, error=said, fault=fault)
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
    """Play videos with a detector, each whole on one worker, and write a result for each.

    Where Ray runs in this process already, it is used as it is. Else one is started on this machine
    that only this machine can reach, and stopped again.

    Args:
        videos: The videos; with results they are done again.
        settings: What is done with them.
        out: Folder of the results, which all workers can write into.
        workers: How many videos are played at a time; by default one for each GPU, and without
            GPUs one for every two cores.
        threads: Of a worker; by default the cores shared out between the workers.
        address: Of a running cluster of Ray's (``auto`` finds it); workers need the same paths.
        done: Is told each outcome as soon as it is there.

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
    # reason: said once and here, not by each worker
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
                error="the process that played it was ended twice by the system, as it does when "
                "memory runs out; use fewer --workers.",
            )
            done(outcomes[video.name])
    return [outcomes[video.name] for video in videos]


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A Ray to work with: the one that runs, that of an address, or one of this machine's own."""
    if address is None:
        os.environ.setdefault(_LOOPBACK, "0")
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
    """How many workers there are, and the cores and GPUs of each.

    Raises:
        UserError: They do not fit, so that Ray would wait for ever.
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
            f"{len(nodes)} machines, which take {room}; give fewer of either."
        )
    # reason: workers of one GPU share it in equal parts, or Ray cannot place the last one
    return size, each, 1 / math.ceil(size / gpus) if gpus else 0


def _outcomes(
    videos: Sequence[BatchVideo], made: tuple[Any, ...], size: int, cores: int, gpus: float
) -> Iterator[Outcome]:
    """What becomes of the videos, as it comes; nothing of one whose worker died with it twice."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    rows = [{"name": video.name, "path": video.path} for video in videos]
    with warnings.catch_warnings():
        # reason: Ray 2.60, which is pinned, knows no other way to say how often to try again
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
    for row in played.iter_rows():
        yield Outcome(**json.loads(row["outcome"]))
