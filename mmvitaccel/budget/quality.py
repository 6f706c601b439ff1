"""A lower bound of the level that limits how much frames leave out."""

from __future__ import annotations

from mmvitaccel.arguments import number

_RISE, _FALL = 0.25, 0.05  # of a level, in one frame
_ROOM = 0.7  # share of the limit below which the floor falls


class QualityFloor:
    """The lowest level at which frames leave out no more than a limit.

    It rises as soon as a frame leaves out more, and falls slowly while frames leave out much less,
    because this depends on the video.

    Args:
        limit: Upper limit of ``handle.frames[0].left_out``; None for no limit.

    Attributes:
        level: The floor; 0 is below every level.

    Raises:
        ValueError: The limit is not above 0 or not below 1.
    """

    def __init__(self, limit: float | None = None) -> None:
        why = "it is the share of the tokens' squared norm that a frame may leave out"
        self.limit = number("Budget", "left_out", limit, above=0, below=1, or_none=True, why=why)
        self.level = 0

    def note(self, level: int, left_out: float) -> None:
        """Learn from the ``left_out`` of a frame at ``level``."""
        if left_out > self.limit:
            self.level = max(self.level, level + max(int(_RISE * level), 1))
        elif left_out < _ROOM * self.limit:
            self.level = max(self.level - max(int(_FALL * self.level), 1), 0)
