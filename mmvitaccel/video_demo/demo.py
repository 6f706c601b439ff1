"""A detector on a video, frame by frame, under a budget."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.budget.budget import Budget
from mmvitaccel.budget.knobs import with_k
from mmvitaccel.budget.target import Target
from mmvitaccel.errors import UserError, building, running
from mmvitaccel.fit.datasets import data_sets
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.pictures.frame_pipeline import FramePipeline
from mmvitaccel.pictures.token_share import token_share
from mmvitaccel.runner.attached_hooks import attach_hooks
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.video_demo.copies import on_the_same_weights
from mmvitaccel.video_demo.costs import Costs
from mmvitaccel.video_demo.drawing import Painter
from mmvitaccel.video_demo.frame import DemoFrame, Step
from mmvitaccel.video_demo.schedule import parse_budget
from mmvitaccel.video_demo.tracks import Tracks
from mmvitaccel.video_reader import Video, open_video

LEAST_SCORE = 0.3
_DENSE_EVERY = 50  # the dense model is timed again on every 50th frame
_LOWEST = 32  # by default, the lowest k of a budget is 1/32 of the tokens


class VideoDemo:
    """Runs a detector with Eventful on videos, and draws its detections and recomputed tokens.

    Args:
        config: Path of a detector's config, or the config itself.
        checkpoint: Path of its weights; None leaves them random.
        budget: A target, or a text such as ``'200ms'``, ``'2fps'``, ``'40%'`` or ``'90G'``; None
            leaves the policy as it is.
        bounds: Lowest and highest k of the budget; by default 1/32 of the tokens, and all.
        k: Tokens that pass each gate, for a config without Eventful.
        track: Whether detections get track ids from mmdet's ByteTracker.
        least_score: Least score of a detection that is kept.
        choice: Which weights of the checkpoint to load.
        draw: Whether frames get an image, with the time of the dense model on it. If False, the
            dense model is counted but not timed, and the extra ``video`` is not needed.
        beside: Whether to run the dense model on every frame, and to draw its result beside.

    Attributes:
        target: The budget from the first frame of the next video on; None leaves the policy as it
            is.
        budget: The budget of the current video; None without one.

    Raises:
        UserError: The config, the checkpoint or the budget is invalid, or a package of the extra
            ``video`` is missing.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config,
        checkpoint: str | os.PathLike | None,
        budget: str | Target | None = None,
        bounds: tuple[int, int] | None = None,
        k: int | None = None,
        track: bool = False,
        least_score: float = LEAST_SCORE,
        choice: Choice = USUAL,
        draw: bool = True,
        beside: bool = False,
    ) -> None:
        cfg = config if isinstance(config, Config) else load_config(os.fspath(config), {})
        self.target = parse_budget(budget) if isinstance(budget, str) else budget
        self.bounds, self.track, self.least_score = bounds, track, least_score
        self.draw, self.beside = draw, beside
        self.model = build_model(cfg)
        _check_detector(self.model)
        self._prepare = FramePipeline(cfg)
        meta: Mapping[str, Any] = {}
        if checkpoint is not None:
            meta = check_checkpoint(self.model, os.fspath(checkpoint), choice=choice)
        attach_hooks(cfg, self.model)
        if k is not None:
            with building("k"):
                attach_eventful(self.model, dict(type="TopK", k=k))
        try:
            self.handle = EventfulHandle(self.model)
        except ValueError as error:
            raise UserError(f"{error} Give an eventful config, or k (--k).") from error
        self.model.to(get_device()).eval()
        self.classes = _classes(cfg, meta)
        self.budget: Budget | None = None

    def apart(self) -> VideoDemo:
        """A copy on the same weights, with its own streams, policy and budget."""
        other = copy.copy(self)
        other.model = on_the_same_weights(self.model)
        other.handle = EventfulHandle(other.model)
        other.budget = None
        return other

    def play(
        self,
        source: str | int | os.PathLike | Video,
        schedule: Mapping[int, Target] | None = None,
    ) -> Iterator[DemoFrame]:
        """Run on a video to its end, as one stream, with one frame in memory.

        Args:
            source: A source for :func:`mmvitaccel.video_reader.open_video`, or an open video.
            schedule: Budgets by the number of the frame from which they hold.

        Raises:
            UserError: The video cannot be read, or the model fails on it.
        """
        video = source if isinstance(source, Video) else open_video(source)
        painter = Painter(self.classes, self.track) if self.draw else None
        tracks = Tracks() if self.track else None
        self.handle.reset()
        self.budget, costs = None, None
        try:
            with video, running(self.model, video.name):
                for number, frame in enumerate(video):
                    step = Step(self._prepare, frame, number)
                    if costs is None:
                        costs = Costs(self.model, step.run, timed=self.draw)
                        self._begin((schedule or {}).get(0, self.target), costs.num_tokens)
                    elif schedule and number in schedule:
                        self.budget.set_target(schedule[number])
                    dense = None
                    if self.draw and (self.beside or (number and number % _DENSE_EVERY == 0)):
                        dense = costs.measure_dense(step.run)
                    yield self._frame(step, costs, painter, tracks, dense if self.beside else None)
        finally:
            if self.budget is not None:
                self.budget.remove()

    def _begin(self, target: Target | None, num_tokens: int) -> None:
        """Start the budget, if there is a target."""
        if target is None:
            return
        bounds = self.bounds or (max(num_tokens // _LOWEST, 1), num_tokens)
        kind = {target.kind: target.value}
        self.budget = Budget(self.handle, k=bounds, **kind)

    def _frame(
        self, step: Step, costs: Costs, painter: Painter | None, tracks: Tracks | None, dense: Any
    ) -> DemoFrame:
        """Compute a frame; a painter draws it, beside the detections of ``dense``."""
        if self.budget is None:
            start = costs.now()
            sample = step.run(self.model, step.number)
            ms, policy = 1e3 * (costs.now() - start), with_k(self.handle.policy)
            k, macs, target, missed = None if policy is None else policy.k, None, None, False
        else:
            with self.budget.frame() as record:
                sample = step.run(self.model, step.number)
            ms, k, macs, target = record.milliseconds, record.k, record.macs, record.target
            missed = self.budget.missed is not None
        (info,) = self.handle.uncounted_frames
        whole = info.first or info.refreshed
        frame = DemoFrame(
            number=step.number,
            seconds=step.frame.seconds,
            detections=self._detections(sample, step.number, tracks),
            dense_detections=None if dense is None else self._detections(dense, step.number),
            milliseconds=ms,
            macs=costs.macs(k, whole) if macs is None else macs,
            dense_milliseconds=costs.dense_ms,
            dense_macs=costs.dense_macs,
            k=k,
            target=target,
            missed=missed,
            whole=whole,
        )
        if painter is not None:
            frame.image = painter.draw(step.image, None if whole else self._share(step), frame)
        return frame

    def _detections(self, sample: Any, number: int, tracks: Tracks | None = None) -> Any:
        if tracks is not None:
            sample.set_metainfo(dict(frame_id=number))
            found = tracks.follow(sample)
        else:
            found = sample.pred_instances
        return found[found.scores >= self.least_score]

    def _share(self, step: Step) -> np.ndarray:
        """For each pixel of the video, the share of gates that its token passed."""
        (tokens,) = self.handle.passed_tokens()
        patch, share = token_share(self.handle, tokens, step.padded, step.resized)
        height, width = step.resized
        pixels = np.kron(share, np.ones((patch, patch), np.float32))[:height, :width]
        size = step.image.shape[1::-1]
        return cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)


def _check_detector(model: nn.Module) -> None:
    """Check that a model is a detector."""
    from mmdet.models.detectors.base import BaseDetector

    if not isinstance(model, BaseDetector):
        raise UserError(
            f"the config's model is a {type(model).__name__}, which finds no boxes in a frame; "
            "give a detector of mmdet (tools/stream_recognize.py follows recognizers)."
        )


def _classes(cfg: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names from the checkpoint, else from the config's data set."""
    named = (meta.get("dataset_meta") or {}).get("classes") or ()
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    return next((data.classes for data in data_sets(cfg, "test") if data.classes), ())
