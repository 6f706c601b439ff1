"""Makes the records of benchmarks/records.yaml one by one, shortest first.

    python benchmarks/run_all.py               # all: what `make records` does
    python benchmarks/run_all.py --missing     # those that were not made yet
    python benchmarks/run_all.py tome clip     # only these
    python benchmarks/run_all.py --list        # names, minutes and commands

Times are meaningful only while nothing else runs. Each command gets ``--record NAME``. The folder
``work_dirs/records/NAME``, in which some benchmarks store what they train, is emptied first. If a
command fails, the others still run, and the exit status is 1. Then run `make pages` to update the
pages.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from mmvitaccel.errors import UserError, closest, one_sentence_errors
from mmvitaccel.records.plan import PLAN, Planned, read_plan
from mmvitaccel.records.record import CHECKOUT, path_of


def run(name: str, planned: Planned) -> bool:
    """Run one benchmark from the root of the checkout; returns whether it succeeded."""
    shutil.rmtree(CHECKOUT / "work_dirs" / "records" / name, ignore_errors=True)
    arguments = [sys.executable, *shlex.split(planned.command), "--record", name]
    return subprocess.run(arguments, cwd=CHECKOUT, check=False).returncode == 0


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the requested records, and report failures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="records to make; default: all")
    parser.add_argument("--missing", action="store_true", help="only those that do not exist")
    parser.add_argument("--list", action="store_true", help="print the records and run nothing")
    args = parser.parse_args(argv)
    plan = read_plan()
    for name in args.names:
        if name not in plan:
            raise UserError(f"{name!r} is not in {PLAN.name}{closest(name, plan) or '.'}")
    names = sorted(args.names or plan, key=lambda name: plan[name].minutes)
    names = [name for name in names if not (args.missing and path_of(name).is_file())]
    for name in names:
        print(f"{plan[name].minutes:>4} min  {plan[name].full_command(name)}")
    print(f"{sum(plan[name].minutes for name in names):>4} min together", flush=True)
    if args.list:
        return
    failed = []
    for name in names:
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        if not run(name, plan[name]):
            failed.append(name)
        print(f"=== {name}: {(time.monotonic() - start) / 60:.1f} min", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
