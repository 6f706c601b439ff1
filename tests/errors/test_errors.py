from __future__ import annotations

import errno
import os
import runpy
import textwrap
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import Registry
from mmengine.structures import InstanceData
from torch import nn

from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import (
    ArgumentParser,
    UserError,
    building,
    closest,
    one_sentence_errors,
    running,
)

TOOLS = Path(__file__).parents[2] / "tools"

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
        (dict(arch="s"), "thing: .*has no type"),
    ],
)
def test_building_says_what_is_wrong_with_a_config(config, sentence):
    with pytest.raises(UserError, match=sentence) as caught, building("thing"):
        THINGS.build(config)
    assert caught.value.__cause__ is not None


def test_a_key_error_may_hold_a_sentence():
    """OpenMMLab raises it for values that have no meaning."""
    said = "CheckpointHook: rule must be greater or less, but got big."
    with pytest.raises(UserError, match=f"^config: {said}$"), building("config"):
        raise KeyError(said)
    with pytest.raises(UserError, match="the key 'meta' is missing"), building("config"):
        {}["meta"]


@pytest.mark.parametrize("paramwise", [None, {"bias_lr_mult": 2.0}])
def test_an_unknown_optimizer_is_named(paramwise):
    from mmengine.optim import build_optim_wrapper

    wrapper = dict(optimizer=dict(type="SGDD", lr=0.1), paramwise_cfg=paramwise)
    sentence = r"type 'SGDD' is not in .*optimizer registry; .*did you mean 'SGD'"
    with pytest.raises(UserError, match=sentence), building("config"):
        build_optim_wrapper(nn.Linear(2, 2), wrapper)


def test_a_state_of_an_optimizer_of_other_parameters():
    old = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=1)
    other = [{"params": [torch.zeros(1), torch.zeros(1)]}, {"params": [torch.zeros(1)]}]
    for params in ([torch.zeros(1)], other):
        with (
            pytest.raises(UserError, match=r"^config: the optimizer's state in the checkpoint is"),
            building("config"),
        ):
            torch.optim.SGD(params, lr=1).load_state_dict(old.state_dict())


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
    sentence = r"^config: assert depth < 9 is false \(in check\)$"
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


class Trained(nn.Module):
    def loss(self, sample, name):
        return getattr(sample, name)


def test_running_names_what_the_pipeline_does_not_load():
    model = nn.ModuleDict({"head": Trained()})
    for sample, name, cure in (
        (InstanceData(), "masks", "masks; set with_mask=True in LoadAnnotations, or"),
        (InstanceData(), "bboxes", "boxes; set with_bbox=True"),
        (DetDataSample(), "gt_sem_seg", "segmentation maps; set with_seg=True"),
    ):
        sentence = rf"^try: in head \(Trained\): the samples of the training .* have no {cure}"
        with pytest.raises(UserError, match=sentence), running(model, "try"):
            model["head"].loss(sample, name)
    with pytest.raises(AttributeError), running(model, "try"):
        model["head"].loss(InstanceData(), "whatever")
    with pytest.raises(AttributeError), running(model, "try"):
        InstanceData().masks  # noqa: B018


class DataPreprocessor(nn.Module):
    def forward(self, data):
        return data["inputs"]


def test_running_names_the_step_that_packs_samples():
    model = nn.ModuleDict({"data_preprocessor": DataPreprocessor(), "other": Trained()})
    sentence = r"^try: in data_preprocessor .*have no 'inputs'; end the pipeline .*PackDetInputs"
    with pytest.raises(UserError, match=sentence), running(model, "try"):
        model["data_preprocessor"]({})
    with pytest.raises(KeyError), running(model, "try"):
        model["data_preprocessor"](type("Own", (dict,), {"__getitem__": lambda self, k: {}[k]})())
    with pytest.raises(KeyError), running(model, "try"):
        {}["inputs"]


def test_running_names_what_a_metric_reads():
    from mmdet.evaluation import CocoMetric

    class Own(CocoMetric):
        def process(self, batch, samples):
            return samples[0]["nothing"]

    sample = dict(pred_instances={})
    sentence = r"^try: the evaluator CocoMetric reads 'img_id', which the samples do not have; name"
    with pytest.raises(UserError, match=sentence), running(Model(), "try"):
        CocoMetric().process({}, [sample])
    with pytest.raises(KeyError), running(Model(), "try"):
        Own().process({}, [sample])


def test_running_names_a_loss_whose_labels_are_of_another_shape():
    model = nn.ModuleDict({"loss": nn.BCEWithLogitsLoss()})
    sentence = r"^try: in loss \(BCEWithLogitsLoss\): Target size .*must be the same as input size"
    with pytest.raises(UserError, match=sentence), running(model, "try"):
        model["loss"](torch.zeros(2, 2), torch.zeros(2))


def test_running_takes_the_packages_refusals_and_missing_files():
    with pytest.raises(UserError, match=r"^try: there is no x\.jpg$"), running(Model(), "try"):
        raise FileNotFoundError("there is no\n x.jpg")
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


def package_function(source: str, name: str = "mmvitaccel.core.some"):
    """The function ``f`` of a source, as of a module of that name."""
    space = {"__name__": name}
    exec(compile(textwrap.dedent(source), "/srv/mmvitaccel/lib/some.py", "exec"), space)
    return space["f"]


REFUSES = """
    def f():
        raise ValueError("f: k is 5; set k <= 4.")
"""
REFUSES_A_TYPE = """
    def f():
        raise TypeError("f: policy=Keep is a class; give an object.")
"""
STUMBLES = """
    def f():
        return int("five")
"""


def test_what_the_package_refuses_is_told_from_its_faults_by_the_raise():
    with pytest.raises(UserError, match=r"^try: f: k is 5; set k <= 4\.$"), running(Model(), "try"):
        package_function(REFUSES)()
    with pytest.raises(ValueError, match="invalid literal for int"), running(Model(), "try"):
        package_function(STUMBLES)()


@pytest.mark.parametrize("name", ["someones.module", "mmvitaccel_fork.module"])
def test_folders_of_that_name_make_no_refusal(name):
    """The environment may lie in a folder called mmvitaccel: modules count, not paths."""
    with pytest.raises(ValueError, match="k is 5"), running(Model(), "try"):
        package_function(REFUSES, name)()


def test_a_misspelt_name_in_the_package_is_no_configuration():
    with pytest.raises(NameError, match="undefined"), building("model"):
        package_function("def f():\n    return undefined")()
    with pytest.raises(UserError, match=r"model: .*undefined"), building("model"):
        package_function("def f():\n    return undefined", "users.config")()


def ended(main, capsys) -> str:
    """What a tool says, which ends with status 2."""
    with pytest.raises(SystemExit) as exit_:
        one_sentence_errors(main)()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_what_the_package_refuses_ends_a_tool_in_a_sentence_and_its_faults_do_not(capsys):
    assert ended(package_function(REFUSES), capsys) == "error: f: k is 5; set k <= 4.\n"
    with pytest.raises(ValueError, match="invalid literal for int"):
        one_sentence_errors(package_function(STUMBLES))()
    said = ended(package_function(REFUSES_A_TYPE), capsys)
    assert said == "error: f: policy=Keep is a class; give an object.\n"
    for stumbles in ("return len(5)", "return (lambda a: a)()", "return json.loads(5)"):
        with pytest.raises(TypeError):
            one_sentence_errors(package_function(f"import json\ndef f():\n    {stumbles}"))()
    with pytest.raises(TypeError, match="is a class"):
        one_sentence_errors(package_function(REFUSES_A_TYPE, "someones.module"))()


@pytest.mark.parametrize("value", ["x" * 20_000, "[1, 2], " * 3000, "/folder" * 2000])
def test_overlong_values_lose_their_middle(value, capsys):
    def give_up():
        raise UserError(f"--k {value}: it is no number; give one.")

    def refuse_path():
        open(value)  # noqa: SIM115 (it is never opened)

    said = ended(give_up, capsys)
    assert len(said) < 1600
    assert said.startswith(f"error: --k {value[:100]}")
    assert " more ...]" in said
    assert said.endswith("it is no number; give one.\n")
    assert len(ended(refuse_path, capsys)) < 1600
    with pytest.raises(UserError) as caught, building("config"):
        raise KeyError(value)
    assert len(str(caught.value)) < 1600


@pytest.mark.parametrize("given", [["--size", "9" * 20_000], ["--size", "1", "x" * 20_000]])
def test_overlong_arguments_lose_their_middle(given, capsys):
    parser = ArgumentParser(prog="tool")
    parser.add_argument("--size", type=int, choices=[1, 2])
    parser.add_subparsers().add_parser("part").add_argument("--size", type=int, choices=[1, 2])
    for argv in (given, ["part", *given]):
        with pytest.raises(SystemExit, match=r"^2$"):
            parser.parse_args(argv)
        said = capsys.readouterr().err
        assert " more ...]" in said
        assert len(said) < 1600


@pytest.mark.parametrize("tool", sorted(TOOLS.rglob("*.py")), ids=lambda path: path.stem)
def test_every_tool_reads_its_arguments_by_that_parser(tool):
    source = tool.read_text()
    assert "argparse.ArgumentParser" not in source
    assert "ArgumentParser(" in source


def test_long_sentences_and_paths_stay_whole():
    path = "/data/" + "folder/" * 40 + "epoch_12.pth"
    assert (
        str(UserError(f"checkpoint {path} does not exist.")) == f"checkpoint {path} does not exist."
    )
    words = "a word " * 200
    assert str(UserError(words)) == words


def test_files_that_the_system_refuses(tmp_path, capsys):
    def missing():
        (tmp_path / "none.json").read_text()

    assert "none.json: no such file or directory; correct the path." in ended(missing, capsys)
    assert "is a directory; give a file." in ended(tmp_path.read_text, capsys)
    (tmp_path / "file").write_text("")

    def below():
        (tmp_path / "file" / "x").write_text("")

    assert "/file/x: not a directory; give a path below a folder." in ended(below, capsys)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "epoch_1.pth: no space left on device; free space on the disk or"),
        (errno.EACCES, "epoch_1.pth: permission denied; correct the permissions"),
        (errno.EROFS, "epoch_1.pth: read-only file system; give a path on a disk"),
        (errno.EIO, "epoch_1.pth: input/output error; check the disk."),
    ],
)
def test_a_write_that_fails_names_its_file(number, sentence, capsys):
    """As mmengine writes: the system's error has no path, the function around it has."""

    def put(obj, filepath):
        raise OSError(number, os.strerror(number))

    assert sentence in ended(lambda: put(b"", "epoch_1.pth"), capsys)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyboardInterrupt(), "interrupted from the keyboard"),
        (AssertionError("Torch not compiled with CUDA enabled"), "there is no such device"),
        (RuntimeError("Found no NVIDIA driver on your system."), "there is no such device"),
        (
            RuntimeError(
                "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by "
                "peer [127.0.0.1]:2905"
            ),
            "another process of this run ended",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "reduce the batch size"),
        (
            RuntimeError("[enforce fail at inline_container.cc:664] PytorchStreamWriter failed"),
            "a checkpoint could not be written completely; free space",
        ),
    ],
)
def test_devices_disks_and_the_keyboard(error, sentence, capsys):
    def main():
        raise error

    assert sentence in ended(main, capsys)


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("x"), BrokenPipeError(32, "x")])
def test_faults_keep_their_traceback(error):
    @one_sentence_errors
    def main():
        raise error

    with pytest.raises(type(error)):
        main()


def test_a_real_disk_that_is_full(capsys):
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is not there")

    def main():
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    assert "no space left on device; free space" in ended(main, capsys)


def test_closest():
    assert closest("model.bacbone", ["model.backbone", "neck"]).endswith("'model.backbone'?")
    assert closest("xyz", ["model", "neck"]) == ""


def test_an_import_that_fails_while_a_type_is_looked_up():
    def look_up():
        obj_cls = None  # as in mmengine's build_from_cfg before the type is known
        raise ImportError(f"cannot import name 'x', and {obj_cls} is known")

    sentence = "^model: cannot import name 'x', and None is known$"
    with pytest.raises(UserError, match=sentence), building("model"):
        look_up()
