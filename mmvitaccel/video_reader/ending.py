"""What is to be said of how the frames of a video ended."""

from __future__ import annotations

from dataclasses import dataclass

from mmvitaccel.video_reader.timing import known_duration

_FRAMES = 2  # reason: some containers announce a frame or two that no player shows
_SECONDS, _SHARE = 2.0, 0.9  # reason: sound may go on behind the last picture


@dataclass(frozen=True)
class Ending:
    """Where a file ended.

    Attributes:
        name: Of the file.
        given: Frames that it gave.
        seconds: Of the last one; None if not known.
        damaged: Parts that could not be decoded.
    """

    name: str
    given: int
    seconds: float | None
    damaged: int

    def short_of(self, length: int | None, certain: bool, duration: float | None) -> str | None:
        """A sentence if that is before the announced end, or parts are missing.

        Args:
            length: Announced frames; None if not known.
            certain: Whether the header has a place for each of them.
            duration: Announced seconds; None if not known.
        """
        duration = known_duration(duration)
        if length is not None and length - self.given > _FRAMES:
            what = (
                "it is damaged or incomplete"
                if certain or self.damaged
                else "it is incomplete, or its header is wrong"
            )
            return (
                f"{self.name} ended at frame {self.given} of {length}: {what}; the results are of "
                "the frames before."
            )
        if self.damaged:
            return (
                f"{self.name} is damaged: {self.damaged} parts of it could not be decoded and were "
                f"left out; it gave {self.given} frames."
            )
        if duration is None or self.seconds is None:
            return None
        if duration - self.seconds > _SECONDS and self.seconds < _SHARE * duration:
            return (
                f"{self.name} ended at {self.seconds:.2f} s of {duration:.2f} s: it is incomplete, "
                "or its header is wrong; the results are of the frames before."
            )
        return None


def broke_off(name: str, index: int, seconds: float | None, reconnected: int) -> str:
    """A sentence on a live source that is gone.

    Args:
        name: Of the source.
        index: Of its last frame; -1 if there was none.
        seconds: Of that frame.
        reconnected: How often it came back before.
    """
    if index < 0:
        return f"{name} broke off before its first frame; check it with another program."
    back = f" after coming back {reconnected} times" if reconnected else ""
    return f"{name} broke off{back}: frame {index}, {seconds:.2f} s after the first, was the last."
