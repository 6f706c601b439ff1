"""Results of proposals that stay as they are while nothing changes under them.

A head over proposals samples of each a region of one map. Where the same box was computed in the
frame before and no pixel that it samples is new, its result is the one of then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmvitaccel.core.eventful.maps.memory import MapMemory

# Boxes of a moving camera that lie as close as this, in pixels, are taken for the same one.
SAME = 1 / 32


@dataclass
class Results:
    """What was computed of one frame's proposals.

    Attributes:
        frame: Number of the frame in its memory.
        boxes: (N, 5), what says which proposal it is.
        values: By name, (N, ...).
        rested: Whether the camera had not moved.
    """

    frame: int
    boxes: Tensor
    values: dict[str, Tensor]
    rested: bool = True


@dataclass
class ProposalMemory(MapMemory):
    """What a stream remembers of a head over proposals.

    Attributes:
        results: By the step of the head that made them.
        asked: Proposals in the present frame, over all steps.
        done: Of these, those that were computed, () int64.
    """

    results: dict[str, Results] = field(default_factory=dict)
    asked: int = 0
    done: Tensor | int = 0

    def find(self, step: str, boxes: Tensor) -> Tensor:
        """Where boxes lie among those of the frame before, (N,); -1 for nowhere.

        Args:
            step: Of the head.
            boxes: (N, 5) the image, then the box on the levels' own picture.
        """
        found = self.results.get(step)
        if found is None or found.frame != self.frame - 1:
            return boxes.new_full((len(boxes),), -1, dtype=torch.int64)
        own, among = self._in_scene(boxes), found.boxes
        if not (self._rests and found.rested):
            # reason: decoded elsewhere on the view, the same box is another one in its last bits
            own, among = ((x / SAME).round() for x in (own, among))
        return places_of(own, among)

    def keep(self, step: str, boxes: Tensor, values: dict[str, Tensor], done: Tensor) -> None:
        """Remember the results of the present frame's boxes, ``done`` of which were computed."""
        self.results[step] = Results(self.frame, self._in_scene(boxes), values, self._rests)
        self.asked, self.done = self.asked + len(boxes), self.done + done

    @property
    def _rests(self) -> bool:
        return self.place is None or self.place.at_rest

    def _in_scene(self, boxes: Tensor) -> Tensor:
        """Where boxes of the levels' picture lie in its scene, which says which ones they are."""
        if self._rests:
            return boxes
        down, right = self.place.corner
        return boxes + boxes.new_tensor((0, right, down, right, down))

    @property
    def computed(self) -> Tensor:
        """The share of the present frame's proposals that was computed, () float32."""
        return self.done / self.asked if self.asked else torch.zeros(())

    def _begin(self) -> None:
        super()._begin()
        self.asked = self.done = 0

    def _forget(self) -> None:
        super()._forget()
        self.results.clear()


def places_of(boxes: Tensor, among: Tensor) -> Tensor:
    """Where each of boxes (N, D) lies among others (M, D), number by number; (N,), -1: nowhere."""
    if not len(among):
        return boxes.new_full((len(boxes),), -1, dtype=torch.int64)
    _, names = torch.unique(torch.cat([among, boxes]), dim=0, return_inverse=True)
    place = names.new_full((int(names.max()) + 1,), -1)
    place[names[: len(among)]] = torch.arange(len(among), device=place.device)
    return place[names[len(among) :]]


def untouched(first: Tensor, last: Tensor, changed: Tensor) -> Tensor:
    """Which regions of a map hold no pixel that is new.

    Args:
        first: (N, 2) column and row of each region's first pixel, int64; may lie outside.
        last: (N, 2) of its last one.
        changed: (h, w) bool.

    Returns:
        (N,) bool. What lies outside is looked at in the nearest pixel of the map.
    """
    height, width = changed.shape
    sums = changed.new_zeros((height + 1, width + 1), dtype=torch.int64)
    sums[1:, 1:] = changed.long().cumsum(0).cumsum(1)
    (left, top), (right, bottom) = (
        (at[:, 0].clamp(0, width - 1), at[:, 1].clamp(0, height - 1)) for at in (first, last)
    )
    right, bottom = right + 1, bottom + 1
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside == 0
