from __future__ import annotations

import runpy

import pytest
import torch
from mmengine.registry import Registry
from torch import nn

from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError, building, closest, one_sentence_errors, running

THINGS = Registry("thing", scope="mmvitaccel_test")


@THINGS.register_module()
class Backbone(nn.Module):
    def __init__(self, arch, depth=2):
        super().__init__()
        if depth < 1:
            raise ValueError(f"Backbone: depth is {depth}; set 1 or more.")


@THINGS.register_module()
class Tiny(Backbone):
    def __init__(self, **kwargs):
        super().__init__(arch="tiny", **kwargs)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            dict(type="Backbon"),
            r"type 'Backbon' is not in mmvitaccel_test's thing registry; .*mean",
        ),
        (dict(type="Backbone"), r"Backbone needs 'arch'; give it in the config"),
        (dict(type="Backbone", arch="s", dept=1), r"no argument 'dept'; .*did you mean 'depth'"),
        (dict(type="Tiny", dept=1), r"no argument 'dept'; .*did you mean 'depth'"),
        (dict(type="Tiny", depth=0), r"^thing: Tiny: Backbone: depth is 0; set 1 or more\.$"),
        (dict(arch="s"), 'thing: .*must contain the key "type"'),
    ],
)
def test_building_says_what_is_wrong_with_a_config(config, sentence):
    with pytest.raises(UserError, match=sentence) as caught, building("thing"):
        THINGS.build(config)
    assert caught.value.__cause__ is not None


def test_arguments_of_what_no_registry_built():
    def apply(model, r=8):
        pass

    sentence = r"^config: apply has no argument 'rr'; remove or correct it$"
    with pytest.raises(UserError, match=sentence), building("config"):
        apply(None, rr=3)
    with pytest.raises(UserError, match=r"^config: Backbone needs 'arch'"), building("config"):
        Backbone()


def test_a_missing_module_is_named():
    sentence = "No module named 'no_such_module'; install it"
    with pytest.raises(UserError, match=sentence), building("config"):
        __import__("no_such_module")


def test_an_assertion_without_a_message_is_quoted(tmp_path):
    (tmp_path / "host.py").write_text("def check(depth):\n    assert depth < 9\n")
    check = runpy.run_path(str(tmp_path / "host.py"))["check"]
    sentence = r"^config: assert depth < 9 does not hold \(in check\)$"
    with pytest.raises(UserError, match=sentence), building("config"):
        check(9)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.neck = nn.ModuleDict({"lateral": nn.Conv2d(4, 4, 1)})

    def forward(self, x):
        return self.neck["lateral"](x)


def test_running_names_the_module_whose_channels_differ():
    model = Model()
    sentence = r"^try: in neck\.lateral \(Conv2d\): .*to have 4 channels, but got 3 channels"
    with pytest.raises(UserError, match=sentence), running(model, "try"):
        model(torch.zeros(1, 3, 2, 2))


def test_running_leaves_errors_of_the_program_alone():
    with pytest.raises(ZeroDivisionError), running(Model(), "try"):
        raise ZeroDivisionError
    caught = pytest.raises(UserError, match=r"^try: ZeroDivisionError$")
    with caught, running(Model(), "try", every_error=True):
        raise ZeroDivisionError


def test_running_takes_the_packages_refusals_and_missing_files():
    with pytest.raises(UserError, match=r"^try: there is no x\.jpg$"), running(Model(), "try"):
        raise FileNotFoundError("Caught by a worker\nFileNotFoundError: there is no x.jpg")
    with pytest.raises(UserError, match=r"^try: MacsCounter: nothing"), running(Model(), "try"):
        MacsCounter().report()


def test_an_error_ends_a_tool_in_one_line(capsys, monkeypatch):
    @one_sentence_errors
    def main():
        raise UserError("the thing\n  is wrong;   mend it.")

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: the thing is wrong; mend it.\n"
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("error (rank 1): the thing")
    monkeypatch.setenv("MMVITACCEL_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        main()
    assert "Traceback" in capsys.readouterr().err


def test_closest():
    assert closest("model.bacbone", ["model.backbone", "neck"]).endswith("'model.backbone'?")
    assert closest("xyz", ["model", "neck"]) == ""
