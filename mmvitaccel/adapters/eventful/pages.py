"""How a head knows what a neck's levels are: the memory that they lie in goes along with them.

A detector hands a neck's levels on as tensors. What the neck remembers of them, and which of their
pixels are new, is noted on these tensors; a head that is given them follows. A tensor that anybody
made of a level has no such note, and the head then looks for changes itself.
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
    """Note on each level (B, C, h, w) the pages of the batch's streams, and its place there."""
    for place, level in enumerate(levels):
        setattr(level, _NOTE, (pages, place))


def pages_of(levels: Sequence[Tensor]) -> list[Pages] | None:
    """The pages of a batch's streams, with the sheets of ``levels``; None where none is noted."""
    notes = [getattr(level, _NOTE, None) for level in levels]
    if None in notes or any(note[0] is not notes[0][0] for note in notes):
        return None
    pages, places = notes[0][0], [place for _, place in notes]
    return [replace(page, sheets=[page.sheets[place] for place in places]) for page in pages]


def memory_of(
    stream: StreamState | None, kind: type[MapMemory] = MapMemory, on_scene: bool = False
) -> MapMemory:
    """A stream's memory of maps; one that nobody keeps for a frame of no stream.

    Where the maps are those of a view over a scene, it has followed the view.

    Args:
        stream: What is remembered.
        kind: Of memory.
        on_scene: Whether the maps must be such ones.

    Raises:
        RuntimeError: They must, and nobody said where the view lies.
    """
    if stream is None:
        return kind()
    # reason: an interrupted frame leaves its memory half changed; the stream then starts clean at
    # its next frame.
    stream.busy = True
    memory = stream.blocks.setdefault(0, kind())
    if stream.place is not None:
        memory.move(stream.place, stream.refreshed)
    elif on_scene:
        raise RuntimeError(
            "Eventful: maps came without a frame's backbone, which follows its camera and says "
            "where they lie; call the whole detector, or name the stream around the calls of its "
            "parts: `with handle.stream(...)`."
        )
    return memory


def sheets_of(
    memory: MapMemory, pages: Pages | None, maps: Sequence[Tensor], policy: Policy, border: int
) -> list[Sheet]:
    """A frame's maps for a head: those of the neck's pages, or through gates of its own.

    Args:
        memory: The head's.
        pages: What the neck says of the maps; None where nothing is known.
        maps: (B, C, h, w), fine to coarse.
        policy: Of the head's own gates.
        border: Of their sheets.
    """
    if pages is not None:
        return memory.follow(pages)
    return memory.take(maps, policy, border)
