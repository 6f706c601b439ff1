"""Counts the multiply-adds of a config's model, with the methods of its hooks and without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.core.eventful.frame import frames_of, streams
from mmvitaccel.core.macs.counter import MacsReport, count_macs
from mmvitaccel.errors import running
from mmvitaccel.fit.check import SPLITS, check_model
from mmvitaccel.runner.attached_hooks import attach_hooks, take_off
from mmvitaccel.runner.random_input import Example, make_example, moving_frames
from mmvitaccel.runner.session import build_model


def count_config(
    cfg: Config, size: Sequence[int] | None = None, depth: int = 1, frames: int = 5
) -> dict[str, Any]:
    """Count one forward pass of a config's model.

    Hooks of the config with a method ``attach(model)`` are applied to the model first, as by the
    Runner. If they, or wrappers in the config, attach a method, the model is also counted without
    it. An eventful model runs on frames of a video of a square that moves over a still picture; on
    other frames, a policy may select a different number of tokens.

    Args:
        cfg: Config of a detector, recognizer or classifier.
        size: Input (H, W) in pixels; None for that of the test pipeline.
        depth: Depth of the names in ``modules``; 1 gives backbone, neck and head.
        frames: Number of frames for an eventful model.

    Returns:
        JSON-ready figures: ``params``, ``macs``, ``flops`` (twice ``macs``), ``input_shape``,
        ``views``, ``modules`` (name to ``params`` and ``macs``), ``uncounted``; ``patch_embed``
        (multiply-adds of the patch embedding) if there is one; with a method, ``dense`` (the same
        without it) and ``saving`` (``1 - macs / dense macs``). For an eventful model, the figures
        are means over the frames, and ``frames`` has their ``length``, and ``macs``, ``modules``
        and ``left_out`` of the ``first`` frame and of the last, ``steady`` frame.

    Raises:
        UserError: The model cannot be built or does not accept the input, or its parts and the
            config's data do not match.
    """
    example = make_example(cfg, size)
    model = build_model(cfg)
    check_model(cfg, model, *SPLITS)
    handles = attach_hooks(cfg, model)
    # A change of the mode, which each count would cause, resets streams
    model.eval()
    if _takes_frames(model):
        figures = _eventful_figures(model, example, depth, frames)
    else:
        figures = _figures(model, _count(model, example, example.inputs), example, depth)
    if take_off(model, handles):
        dense = _figures(model, _count(model, example, example.inputs), example, depth)
        figures["dense"] = dense
        figures["saving"] = 1 - figures["macs"] / dense["macs"] if dense["macs"] else 0.0
    return figures


def _count(model: nn.Module, example: Example, inputs: torch.Tensor) -> MacsReport:
    shape = " x ".join(str(n) for n in example.shape)
    with running(model, f"the model does not take an input of {shape}", every_error=True):
        return count_macs(model, inputs, **example.kwargs)


def _takes_frames(model: nn.Module) -> bool:
    """Whether a model is eventful from call to call, not only within a clip."""
    states = [found.state for found in map(link, model.modules()) if found is not None]
    return any(isinstance(state, StreamRun) and not state.clips for state in states)


def _eventful_figures(
    model: nn.Module, example: Example, depth: int, length: int
) -> dict[str, Any]:
    """Figures of one stream: the mean over its frames, the first and the last frame."""
    frames = []
    for index, inputs in enumerate(moving_frames(example, length)):
        for sample in example.kwargs.get("data_samples", ()):
            sample.set_metainfo(dict(video_id=0, frame_id=index))
        with streams(frames_of("counted", index)):
            row = _figures(model, _count(model, example, inputs), example, depth)
        frames.append(row | dict(left_out=_left_out(model)))
    macs = _mean(frame["macs"] for frame in frames)
    figures = frames[-1] | dict(macs=macs, flops=2 * macs)
    figures["modules"] = {
        name: row | dict(macs=_mean(frame["modules"][name]["macs"] for frame in frames))
        for name, row in frames[-1]["modules"].items()
    }
    shown = {
        name: {key: frame[key] for key in ("macs", "modules", "left_out")}
        for name, frame in (("first", frames[0]), ("steady", frames[-1]))
    }
    return figures | dict(frames=dict(length=length, **shown))


def _left_out(model: nn.Module) -> float:
    """``left_out`` of the last frame, averaged over the parts with gates."""
    states = [found.state for found in map(link, model.modules()) if found is not None]
    runs = {id(state): state for state in states if isinstance(state, StreamRun)}
    frames = [run.frames[-1].counted() for run in runs.values() if run.frames]
    gated = [frame.left_out for frame in frames if frame.left_out_by_gate]
    return mean(gated) if gated else 0.0


def _mean(values: Iterable[int]) -> int:
    return round(mean(values))


def _figures(model: nn.Module, report: MacsReport, example: Example, depth: int) -> dict[str, Any]:
    modules = {}
    for name, module in model.named_modules():
        params = sum(p.numel() for p in module.parameters())
        macs = report.by_module.get(name, 0)
        if name and name.count(".") < depth and (params or macs):
            modules[name] = dict(params=params, macs=macs)
    embedding = sum(
        macs for name, macs in report.by_module.items() if name.rpartition(".")[2] == "patch_embed"
    )
    figures = dict(
        params=report.params,
        macs=report.total,
        flops=2 * report.total,
        input_shape=list(example.shape),
        views=example.views,
        modules=modules,
        uncounted=report.uncounted,
    )
    return figures | dict(patch_embed=embedding) if embedding else figures
