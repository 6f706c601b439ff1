"""Handle of ToMe on a model, and its report of a forward pass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import Tensor

from mmvitaccel.adapters.handle import Handle
from mmvitaccel.adapters.tome.run import METHOD, ToMeState
from mmvitaccel.core.tome.merge import source_of
from mmvitaccel.core.tome.schedule import Schedule, make_schedule
from mmvitaccel.core.tome.trace import Trace


@dataclass(frozen=True)
class ToMeInfo:
    """Tokens of the last forward pass, with one entry per block.

    If a block restores its tokens (windows, frames), the entries describe the merged tokens inside
    it, for B windows or frames.

    Attributes:
        tokens: Number of output tokens of the block including prefix tokens, for the longest image.
        sizes: Patches in each of them (B, N, 1), float32; 0 at the end of a shorter image.
        sources: (B, N, N0) bool, the input tokens in each of them; None without ``trace_source``.
    """

    tokens: list[int]
    sizes: list[Tensor]
    sources: list[Tensor] | None


class ToMeHandle(Handle):
    """Controls ToMe on one model.

    Attributes:
        model: The transformer with ToMe.
    """

    method = METHOD
    _state: ToMeState

    @property
    def r(self) -> Schedule:
        """Tokens merged per block, as given; a new value applies from the next forward pass."""
        return self._state.r

    @r.setter
    def r(self, value: Schedule) -> None:
        self.check_attached("r cannot be set")
        state = self._state
        if state.traces.active is not None:
            raise RuntimeError(
                f"ToMe: r cannot change from {state.r} to {value} during a forward pass; set it "
                "before or after."
            )
        schedule = make_schedule(value, len(state.schedule))
        if self.model.training and state.traces.last is not None and schedule != state.schedule:
            warnings.warn(
                f"ToMe: r changes from {state.r} to {value} while the model is in training mode; "
                "the next forward pass follows, the steps so far were at the old r.",
                stacklevel=2,
            )
        state.r, state.schedule = value, schedule

    @property
    def info(self) -> ToMeInfo:
        """Tokens of the last forward pass.

        Each thread gets its own last pass.

        Raises:
            RuntimeError: There was no forward pass.
        """
        trace = self._state.traces.last
        if trace is None or not trace.behind:
            raise RuntimeError("ToMe: no forward pass has run yet, so there is no info.")
        return _info(trace, self._state.trace_source)

    @property
    def tokens(self) -> list[int]:
        """``info.tokens`` alone; empty before the first forward pass."""
        trace = self._state.traces.last
        return [] if trace is None else _tokens(trace)


def _tokens(trace: Trace) -> list[int]:
    return [trace.behind[index].size.shape[1] for index in sorted(trace.behind)]


def _info(trace: Trace, with_sources: bool) -> ToMeInfo:
    behind = [trace.behind[index] for index in sorted(trace.behind)]
    sizes, tokens = [standing.size for standing in behind], _tokens(trace)
    if not with_sources:
        return ToMeInfo(tokens, sizes, None)
    sources = [source_of(standing.owners(), n) for standing, n in zip(behind, tokens)]
    return ToMeInfo(tokens, sizes, sources)
