"""Links from a neck's levels to their memory, for heads.

A detector passes a neck's levels as tensors. The neck attaches its memory and the changed pixels to
these tensors, and a head that receives them uses both. Tensors derived from a level have no such
attachment, and the head then detects changes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.maps.memory import MapMemory, Pages
from mmvitaccel.core.eventful.maps.sheets import Sheet
from mmvitaccel.core.eventful.stream import StreamState

_NOTE = "_mmvitaccel_pages"


def put_pages(levels: Sequence[Tensor], pages: list[Pages]) -> None:
    """Attach to each level (B, C, h, w) the pages of the batch's streams, and its index there."""
    for place, level in enumerate(levels):
        setattr(level, _NOTE, (pages, place))


def pages_of(levels: Sequence[Tensor]) -> list[Pages] | None:
    """The pages of a batch's streams, with the sheets of ``levels``; None if not attached."""
    notes = [getattr(level, _NOTE, None) for level in levels]
    if None in notes or any(note[0] is not notes[0][0] for note in notes):
        return None
    pages, places = notes[0][0], [place for _, place in notes]
    return [replace(page, sheets=[page.sheets[place] for place in places]) for page in pages]


def memory_of(
    stream: StreamState | None, kind: type[MapMemory] = MapMemory, on_scene: bool = False
) -> MapMemory:
    """A stream's memory of maps, or a temporary one for a frame without a stream.

    If the maps are those of a view, the memory has followed the view.

    Args:
        stream: State of the stream.
        kind: Class of the memory.
        on_scene: Whether the maps must be those of a view.

    Raises:
        RuntimeError: They must, but the position of the view is unknown.
    """
    if stream is None:
        return kind()
    # An interrupted frame leaves its memory half changed; the stream then starts clean at
    # its next frame.
    stream.busy = True
    memory = stream.blocks.setdefault(0, kind())
    if stream.place is not None:
        memory.move(stream.place, stream.refreshed)
    elif on_scene:
        raise RuntimeError(
            "Eventful: maps came without a frame's backbone, which follows the camera and "
            "provides their position; call the whole detector, or name the stream around the "
            "calls of its "
            "parts: `with handle.stream(...)`."
        )
    return memory


def sheets_of(
    memory: MapMemory, pages: Pages | None, maps: Sequence[Tensor], policy: Policy, border: int
) -> list[Sheet]:
    """A frame's maps for a head: from the neck's pages, or through the head's own gates.

    Args:
        memory: Memory of the head.
        pages: Pages of the neck; None if unknown.
        maps: (B, C, h, w), fine to coarse.
        policy: Policy of the head's own gates.
        border: Border of the sheets.
    """
    if pages is not None:
        return memory.follow(pages)
    return memory.take(maps, policy, border)
