"""``python -m mmvitaccel.runner.launch ...``: torchrun, whose failures end in a sentence.

Takes torchrun's arguments. A process that ends with status 2 has said what is wrong: so does this
one end then, without torchrun's own report of the failure.
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
        UserError: One of them was ended by a signal, or has said what is wrong.
        SystemExit: One of them failed otherwise; its traceback stands above.
    """
    # reason: it reports each failure once more, with the signal and the times
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
    """Sorts causes first: a failure that another process may have led to comes behind it.

    A process whose neighbour has ended says so with the status of a user's mistake, maybe first;
    those that are left are ended by SIGTERM.
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
