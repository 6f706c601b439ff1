"""The list of records that the pages use, each with the command that makes it."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from mmvitaccel.errors import UserError
from mmvitaccel.records.record import CHECKOUT, path_of

PLAN = CHECKOUT / "benchmarks" / "records.yaml"


@dataclass(frozen=True)
class Planned:
    """One record that is to be made.

    Attributes:
        command: Script and arguments, without ``python`` and ``--record``.
        minutes: How long it takes, roughly.
    """

    command: str
    minutes: float

    def full_command(self, name: str) -> str:
        """What to type to make the record of this name."""
        return f"python {self.command} --record {name}"


def read_plan() -> dict[str, Planned]:
    """Every record by its name.

    Raises:
        UserError: ``benchmarks/records.yaml`` has something else in it.
    """
    plan = {}
    for name, entry in yaml.safe_load(PLAN.read_text()).items():
        path_of(name)
        try:
            plan[name] = Planned(**entry)
        except TypeError as error:
            raise UserError(
                f"{PLAN}: {name} needs 'command' and 'minutes', and has {entry!r}."
            ) from error
    return plan
