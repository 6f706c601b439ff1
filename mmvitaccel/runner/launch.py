"""``python -m mmvitaccel.runner.launch ...``: torchrun with one-sentence errors.

It has torchrun's arguments. If a process exits with status 2, it has printed its error; this
process then exits in the same way, without torchrun's report.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmvitaccel.errors import EXIT_STATUS, UserError, one_sentence_errors


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Start the processes and wait for them.

    Raises:
        UserError: A process was ended by a signal, or has printed its error.
        SystemExit: A process failed in another way and has printed its traceback.
    """
    # It would report each failure again
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main(None if argv is None else list(argv))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=_is_an_effect)
        if failure.exitcode == EXIT_STATUS:
            raise UserError(
                f"process {rank} was given something wrong, as it says above."
            ) from None
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(
                f"process {rank} was ended by {name}; {_advice(name)}, and the others were stopped."
            ) from None
        print(f"process {rank} failed with status {failure.exitcode}, see above", file=sys.stderr)
        raise SystemExit(failure.exitcode) from None


def _is_an_effect(found: tuple[int, ProcessFailure]) -> tuple[int, int]:
    """Sort key: causes first, then failures that another process may have caused.

    A process that lost its neighbour exits with the status of a user's mistake, possibly first; the
    remaining processes are ended by SIGTERM.
    """
    effects = (EXIT_STATUS, -signal.SIGTERM)
    code = found[1].exitcode
    return effects.index(code) + 1 if code in effects else 0, found[1].timestamp


def _advice(name: str) -> str:
    if name == "SIGKILL":
        return "the system does so when memory runs out: set a smaller batch size or fewer workers"
    return "see above for what it says"


if __name__ == "__main__":
    main()
