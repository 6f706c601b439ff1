"""A model whose ``test_step`` measures its frames and adds the cost to their results."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from statistics import mean
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import detach_all, is_root
from mmvitaccel.adapters.eventful.detector import HANDLES, handles_in
from mmvitaccel.adapters.eventful.streams.frame_info import FrameInfo
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.hooks.stopwatch import Stopwatch

_CLIP = "video_data_samples"  # attribute of a tracker's data sample with the samples of its frames


# The gates of a block in the order in which tokens meet them.
_GATES = ("qkv", "proj", "mlp")


class MeasuredModel:
    """A model whose ``test_step`` measures itself.

    Args:
        model: Changed on the instance until :meth:`restore`.
        backbone: Module path.
        timed: Whether frames are timed.

    Raises:
        ValueError: The module does not exist.
    """

    def __init__(self, model: nn.Module, backbone: str, timed: bool) -> None:
        modules = dict(model.named_modules())
        # test-time augmentation holds the detector as `module`, a tracker as `detector`
        places = ("", "module.", "detector.", "module.detector.")
        found = [place + backbone for place in places if place + backbone in modules]
        if not found:
            raise ValueError(
                f"CostHook: {type(model).__name__} has no module {backbone!r}; set backbone to one "
                f"of its modules, such as {', '.join(n for n, _ in model.named_children())}."
            )
        self.model, self.backbone = model, found[0]
        place = found[0].removesuffix(backbone)
        behind = {name: place + name for name in HANDLES if place + name in modules}
        #: Module paths of separately counted parts, by name.
        self.parts = {**behind, "backbone": self.backbone}
        self.layers = {part: _layers(at, modules[at]) for part, at in self.parts.items()}
        self.run, self.timed = model.test_step, timed
        self.eventful = handles_in(model)
        self.dense_model = _without_methods(model)
        self.counted_copy: nn.Module | None = None
        self.stopwatch = Stopwatch(modules[self.backbone])
        self.turns = _Turns()
        self.dense: dict[Any, dict[str, Any]] = {}
        self.last_video: Any = None
        model.test_step = self

    def restore(self) -> None:
        """Remove all wrappers and hooks from the model."""
        del self.model.test_step
        self.stopwatch.remove()

    def __call__(self, data: dict[str, Any]) -> Sequence[Any]:
        """Run a batch, and add its cost to each result."""
        first = self._is_first(data["data_samples"])
        cost: dict[str, Any] = {"first": first, **self._dense_figures(data)}
        if first and self.timed:
            cost.update(self._count(self._to_count(data), copy.deepcopy(data)))
        if self.timed and (first or not self.turns.count_now()):
            results, times = self.stopwatch.time(self.run, data)
            cost.update(times)
        else:
            with MacsCounter(self.model) as counter:
                results = self.run(data)
            cost.update(self._figures(counter))
        images = _images(results)
        share = {name: _share(value, len(images)) for name, value in cost.items()}
        starts = {id(clip[0]) for clip in map(_clip, results) if clip}
        for image, passed in zip(images, self._passed(len(images))):
            own = {"first": first and id(image) in starts}
            image.set_metainfo({"cost": {**share, **own, **passed}})
        return results

    def _to_count(self, data: dict[str, Any]) -> nn.Module:
        """The model for a second run of a batch; a copy of a tracker, because tracks have state."""
        if not any(hasattr(sample, _CLIP) for sample in _flat(data["data_samples"])):
            return self.model
        if self.counted_copy is None:
            del self.model.test_step
            self.counted_copy = _shared_copy(self.model)
            self.model.test_step = self
        for handle in handles_in(self.counted_copy).values():
            handle.reset()
        return self.counted_copy

    def _passed(self, batch_size: int) -> list[dict[str, Any]]:
        """For each frame, whether its stream was reset, and what passed the gates and was left out.

        ``left_out`` is averaged over the parts with gates. Tokens are listed by the position of the
        gate; for parts after the backbone, the computed share is given.
        """
        passed: list[dict[str, Any]] = [{} for _ in range(batch_size)]
        for part, handle in self.eventful.items():
            frames = handle.frames
            if len(frames) != batch_size:
                return [{}] * batch_size
            for entry, frame in zip(passed, frames):
                entry["first"] = frame.first or entry.get("first", False)
                if frame.left_out_by_gate or frame.stream is None:
                    entry.setdefault("left_out", []).append(frame.left_out)
                entry["refreshed"] = frame.refreshed or entry.get("refreshed", False)
                entry.setdefault("tokens", {}).update(_tokens(part, frame))
                if part != "backbone":
                    entry.setdefault("computed", {})[part] = frame.computed
        for entry in passed:
            if "left_out" in entry:
                entry["left_out"] = mean(entry["left_out"])
        return passed

    def _is_first(self, samples: Sequence[Any]) -> bool:
        """Whether each frame of a batch is the first one of its video."""
        # All frames of a clip belong to one video
        videos = [
            name
            for sample in _flat(samples)
            for name in dict.fromkeys(image.get("video_id") for image in _clip(sample))
        ]
        first = None not in videos and videos != self.last_video
        self.last_video = videos
        return first

    def _dense_figures(self, data: dict[str, Any]) -> dict[str, Any]:
        """Multiply-adds without any method, counted once for each size of input."""
        shapes = tuple(tuple(image.shape) for image in _flat(data["inputs"]))
        if shapes not in self.dense:
            model = self.dense_model
            model = self._to_count(data) if model is self.model else model
            counted = self._count(model, copy.deepcopy(data))
            self.dense[shapes] = {f"dense_{name}": value for name, value in counted.items()}
        return self.dense[shapes]

    def _count(self, model: nn.Module, data: dict[str, Any]) -> dict[str, Any]:
        # The model's test_step is now this object
        step = self.run if model is self.model else model.test_step
        with MacsCounter(model) as counter:
            step(data)
        return self._figures(counter)

    def _figures(self, counter: MacsCounter) -> dict[str, Any]:
        report = counter.report()
        own = {f"{part}_macs": report.by_module.get(at, 0) for part, at in self.parts.items()}
        layers = {
            f"{part}{name.removeprefix(at)}": report.by_module.get(name, 0)
            for part, at in self.parts.items()
            for name in self.layers[part]
        }
        return {"macs": report.total, "layers": layers, **own}


class _Turns:
    """Decides whether to count or to time a frame, in pairs of seeded random order.

    A fixed order could coincide with a budget that changes periodically.
    """

    def __init__(self) -> None:
        self.random = random.Random(0)
        # If there is only one later frame, it is counted
        self.waiting = [False, True]

    def count_now(self) -> bool:
        if not self.waiting:
            self.waiting = [True, False]
            self.random.shuffle(self.waiting)
        return self.waiting.pop()


def _flat(batch: Sequence[Any]) -> list[Any]:
    """Items of a batch; test-time augmentation has a list for each view."""
    return [
        item for entry in batch for item in (entry if isinstance(entry, (list, tuple)) else [entry])
    ]


def _clip(sample: Any) -> Sequence[Any]:
    """The data samples of a clip's frames, or that of an image."""
    return getattr(sample, _CLIP) if hasattr(sample, _CLIP) else [sample]


def _images(samples: Sequence[Any]) -> list[Any]:
    """The data samples of all images in a batch of images or clips."""
    return [image for sample in samples for image in _clip(sample)]


def _tokens(part: str, frame: FrameInfo) -> dict[str, int]:
    """Tokens that passed each gate, by the position of the gate."""
    if part != "backbone":
        return {f"{part}.cells": frame.passed[0][0]} if frame.passed else {}
    return {
        f"blocks.{block}.{gate}": tokens
        for block, passed in enumerate(frame.passed)
        for gate, tokens in zip(_GATES, passed)
    }


def _shared_copy(model: nn.Module) -> nn.Module:
    """A copy that shares parameters and buffers."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _without_methods(model: nn.Module) -> nn.Module:
    """A copy without methods that shares parameters; the model itself if it has no method."""
    if not any(map(is_root, model.modules())):
        return model
    twin = _shared_copy(model)
    for module in list(twin.modules()):
        detach_all(module)
    return twin


def _layers(path: str, module: nn.Module) -> list[str]:
    """Module paths of a part's layers: its submodules, with lists expanded."""
    names = []
    for name, child in module.named_children():
        at = f"{path}.{name}"
        inside = isinstance(child, (nn.ModuleList, nn.Sequential))
        names += _layers(at, child) if inside and len(child) else [at]
    return names


def _share(value: Any, batch_size: int) -> Any:
    """A frame's share of its batch's cost."""
    if isinstance(value, dict):
        return {name: _share(own, batch_size) for name, own in value.items()}
    return value if isinstance(value, bool) else value / batch_size
