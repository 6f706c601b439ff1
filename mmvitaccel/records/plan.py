"""The list of records for the pages, with the command of each."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from mmvitaccel.errors import UserError
from mmvitaccel.records.record import CHECKOUT, path_of

PLAN = CHECKOUT / "benchmarks" / "records.yaml"


@dataclass(frozen=True)
class Planned:
    """A planned record.

    Attributes:
        command: Script and arguments, without ``python`` and ``--record``.
        minutes: Approximate duration.
    """

    command: str
    minutes: float

    def full_command(self, name: str) -> str:
        """The command line that makes the record of this name."""
        return f"python {self.command} --record {name}"


def read_plan() -> dict[str, Planned]:
    """Every record by its name.

    Raises:
        UserError: ``benchmarks/records.yaml`` is invalid.
    """
    plan = {}
    for name, entry in yaml.safe_load(PLAN.read_text()).items():
        path_of(name)
        try:
            plan[name] = Planned(**entry)
        except TypeError as error:
            raise UserError(
                f"{PLAN}: {name} needs 'command' and 'minutes', but has {entry!r}."
            ) from error
    return plan
