"""Stored results of proposals, reused while nothing changes under them.

A head over proposals samples a region of one map for each proposal. If the same box was computed in
the previous frame and none of its sampled pixels changed, the previous result is reused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmvitaccel.core.eventful.maps.memory import MapMemory

# With a moving camera, boxes within this distance in pixels count as the same box.
SAME = 1 / 32


@dataclass
class Results:
    """Results of one frame's proposals.

    Attributes:
        frame: Number of the frame in its memory.
        boxes: (N, 5), the key of each proposal.
        values: Results by name, (N, ...).
        rested: Whether the camera had not moved.
    """

    frame: int
    boxes: Tensor
    values: dict[str, Tensor]
    rested: bool = True


@dataclass
class ProposalMemory(MapMemory):
    """State of a head over proposals in a stream.

    Attributes:
        results: Results by step of the head.
        asked: Number of proposals in the current frame, over all steps.
        done: Number of computed proposals among these, () int64.
    """

    results: dict[str, Results] = field(default_factory=dict)
    asked: int = 0
    done: Tensor | int = 0

    def find(self, step: str, boxes: Tensor) -> Tensor:
        """Indices of boxes among those of the previous frame, (N,); -1 if not found.

        Args:
            step: Step of the head.
            boxes: (N, 5) image index and box in the coordinates of the levels.
        """
        found = self.results.get(step)
        if found is None or found.frame != self.frame - 1:
            return boxes.new_full((len(boxes),), -1, dtype=torch.int64)
        own, among = self._in_scene(boxes), found.boxes
        if not (self._rests and found.rested):
            # The last bits of a box depend on its position on the view
            own, among = ((x / SAME).round() for x in (own, among))
        return places_of(own, among)

    def keep(self, step: str, boxes: Tensor, values: dict[str, Tensor], done: Tensor) -> None:
        """Store the results of the current frame's boxes, ``done`` of which were computed."""
        self.results[step] = Results(self.frame, self._in_scene(boxes), values, self._rests)
        self.asked, self.done = self.asked + len(boxes), self.done + done

    @property
    def _rests(self) -> bool:
        return self.place is None or self.place.at_rest

    def _in_scene(self, boxes: Tensor) -> Tensor:
        """Convert boxes from coordinates of the levels to scene coordinates."""
        if self._rests:
            return boxes
        down, right = self.place.corner
        return boxes + boxes.new_tensor((0, right, down, right, down))

    @property
    def computed(self) -> Tensor:
        """Share of the current frame's proposals that was computed, () float32."""
        return self.done / self.asked if self.asked else torch.zeros(())

    def _begin(self) -> None:
        super()._begin()
        self.asked = self.done = 0

    def _forget(self) -> None:
        super()._forget()
        self.results.clear()


def places_of(boxes: Tensor, among: Tensor) -> Tensor:
    """Indices (N,) of boxes (N, D) among others (M, D), compared exactly; -1 if not found."""
    if not len(among):
        return boxes.new_full((len(boxes),), -1, dtype=torch.int64)
    _, names = torch.unique(torch.cat([among, boxes]), dim=0, return_inverse=True)
    place = names.new_full((int(names.max()) + 1,), -1)
    place[names[: len(among)]] = torch.arange(len(among), device=place.device)
    return place[names[len(among) :]]


def untouched(first: Tensor, last: Tensor, changed: Tensor) -> Tensor:
    """Find the regions of a map without changed pixels.

    Args:
        first: (N, 2) column and row of each region's first pixel, int64; may be outside.
        last: (N, 2) the same for its last pixel.
        changed: (h, w) bool.

    Returns:
        (N,) bool. Pixels outside are replaced by the nearest pixel of the map.
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
