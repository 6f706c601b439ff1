"""Mutated inputs of every kind: each is read or refused in one sentence, and none runs code.

    python benchmarks/endurance/fuzz.py --count 10000 --seed 0
    python benchmarks/endurance/fuzz.py --kind videos --start 1234 --count 1  # one input again

Each kind runs in a separate process. An input that ends the process (a crash or a hang of a
decoder) is counted, and a new process continues with the next input. The exit status is 1 if
anything went wrong.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import torch

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet is imported)
from mmvitaccel.testing.fuzz.annotations import JsonFiles, XmlFiles
from mmvitaccel.testing.fuzz.checkpoints import Checkpoints
from mmvitaccel.testing.fuzz.options import Options
from mmvitaccel.testing.fuzz.trial import Fault, Kind, Outcome, by_place, run
from mmvitaccel.testing.fuzz.videos import Videos

KINDS: dict[str, type[Kind]] = {
    "checkpoints": Checkpoints,
    "json": JsonFiles,
    "xml": XmlFiles,
    "videos": Videos,
    "options": Options,
}
SECONDS = 30.0  # seconds of CPU time for one input
_WAITING = 1800.0  # seconds of wall time for one input that Python cannot interrupt
_MEMORY = 8 << 30  # bytes of address space; larger allocations fail
Work = Callable[[str, int, range, Connection], None]


def work(name: str, seed: int, indices: range, answers: Connection) -> None:
    """Read inputs in a separate process; report each input and its outcome to the parent."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))

        def tell(index: int) -> None:
            # Native code that hangs ignores Python's signals. The limit is long, because
            # the clock continues while the machine stops the process or runs others
            faulthandler.dump_traceback_later(_WAITING, exit=True)
            answers.send(index)

        # One at a time, so a process that dies loses no other input's result
        for index in indices:
            one = range(index, index + 1)
            answers.send(run(kind, Path(folder), seed, one, SECONDS, tell))
        faulthandler.cancel_dump_traceback_later()


def fuzz(name: str, seed: int, indices: range, work: Work = work) -> Outcome:
    """Read all inputs of a kind; after an input that ends the process, continue in a new one.

    Args:
        name: Name of the kind.
        seed: Seed of the inputs.
        indices: Numbers of the inputs.
        work: Function that the process runs.
    """
    total = Outcome()
    left = indices
    while left:
        last, answered, status = _read_in_process(work, name, seed, left, total)
        if last is None:
            what = f"the process ended with {status} before its first input"
            total.faults.append(Fault(left.start, what, f"{name} {left.start}"))
            total.untried += len(left)
            break
        if status or not answered:
            when = "after this input" if answered else "in this input"
            what = f"the process ended with {status} {when}"
            total.faults.append(Fault(last, what, f"{name} {last}"))
        left = range(last + 1, left.stop)
    return total


def _read_in_process(
    work: Work, name: str, seed: int, indices: range, total: Outcome
) -> tuple[int | None, bool, int | None]:
    """Read inputs in a new process and add the outcomes that it reports.

    Returns:
        The last input that was started, whether its outcome was reported, and the exit status.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=work, args=(name, seed, indices, sender), daemon=True)
    process.start()
    sender.close()
    last, answered = None, False
    try:
        while True:
            message = receiver.recv()
            answered = not isinstance(message, int)
            if answered:
                total.add(message)
            else:
                last = message
    except EOFError:
        process.join()
    return last, answered, process.exitcode


def main(argv: Sequence[str] | None = None) -> None:
    """Run all kinds; print a line for each, and the faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10000, help="inputs in all (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first input of each kind"
    )
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args(argv)
    each = -(-args.count // len(args.kind))
    wrong = 0
    for name in args.kind:
        outcome = fuzz(name, args.seed, range(args.start, args.start + each))
        wrong += len(outcome.faults)
        print(
            f"{name}: {each} inputs, {outcome.read} read, {outcome.refused} refused in a sentence, "
            f"{len(outcome.faults)} went wrong"
            + (f", {outcome.untried} not tried" if outcome.untried else ""),
            flush=True,
        )
        for what, count in by_place(outcome.faults).most_common():
            first = next(fault for fault in outcome.faults if fault.what == what)
            print(f"  {count} x {what}; the first is {first.index}: {first.given!r}", flush=True)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
