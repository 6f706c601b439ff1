from __future__ import annotations

import argparse
import sys

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.registry import type_name
from mmvitaccel.runner.config import load_config, package_of
from mmvitaccel.runner.options.arguments import add_config_arguments


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "model = dict(type='M', backbone=dict(type='B', sizes=(1, 2)), heads=[dict(a=1), dict()])\n"
        "default_hooks = dict(timer=dict(type='IterTimerHook'))\n"
        "total = 3\n"
    )
    return str(path)


def parse(*options):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return parser.parse_args(["config.py", "--cfg-options", *options]).cfg_options


def test_a_hook_from_the_command_line(config):
    options = parse("default_hooks.tome.type=mmvitaccel.ToMeHook", "default_hooks.tome.r=8")
    cfg = load_config(config, options)
    assert cfg.default_hooks.tome == dict(type="mmvitaccel.ToMeHook", r=8)
    assert cfg.default_hooks.timer.type == "IterTimerHook"


def test_values_as_mmengine_reads_them(config):
    cfg = load_config(
        config,
        parse("model.backbone.arch=m0", "model.heads.1.b=[1,2]", "load_from=None", "total=0.5")
        | parse("custom_hooks.0=1"),
    )
    assert cfg.model.backbone.arch == "m0"
    assert cfg.model.heads == [dict(a=1), dict(b=[1, 2])]
    assert cfg.total == 0.5


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("modle.backbone.arch=m0", r"no setting 'modle'; .*did you mean 'model'\?"),
        ("totl=4", r"no setting 'totl'; .*did you mean 'total'\?"),
        ("total.value=4", r"total is 3, which has no setting 'value'; set total itself"),
        ("model.heads.2.a=1", r"model\.heads has 2 items; use a number from 0 to 1 for '2'"),
        ("model.heads.a=1", r"model\.heads is a list of 2; use a number from 0 to 1 for 'a'"),
        ("model.backbone.sizes.0=1", r"model\.backbone\.sizes is a tuple"),
    ],
)
def test_keys_that_lead_nowhere(config, option, sentence):
    with pytest.raises(UserError, match=sentence):
        load_config(config, parse(option))


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("model", "'model' is no KEY=VALUE pair"),
        ("=3", "'=3' is no KEY=VALUE pair"),
        ("custom_hooks=[dict(type='X',r=8)]", "a dict key by key"),
        ("model.heads=[1,(2]", "cannot be read"),
    ],
)
def test_options_that_cannot_be_read(option, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(option)


def test_files_that_are_no_config(config, tmp_path):
    with pytest.raises(UserError, match=r"smal\.py does not exist; .*did you mean 'small\.py'\?"):
        load_config(str(tmp_path / "smal.py"), {})
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(\n")
    with pytest.raises(UserError, match=r"config .*broken\.py: "):
        load_config(str(broken), {})
    broken.write_text("_base_ = 'nowhere.py'\n")
    with pytest.raises(UserError, match=r"nowhere\.py"):
        load_config(str(broken), {})
    broken.write_text("total = 3\n")
    with pytest.raises(UserError, match="defines no model"):
        load_config(str(broken), {})


def test_configs_of_installed_packages():
    cfg = load_config("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", {})
    assert cfg.model.type == "RetinaNet"
    with pytest.raises(UserError, match="retinanet_r51"):
        load_config("mmdet::retinanet/retinanet_r51.py", {})


@pytest.mark.parametrize(
    ("config", "package"),
    [
        (dict(default_scope="mmaction", model=dict(type="Recognizer3D")), "mmaction"),
        (dict(model=dict(type="mmdet.RetinaNet")), "mmdet"),
        (dict(default_scope=None, model=dict(type=argparse.ArgumentParser)), "argparse"),
    ],
)
def test_the_package_of_a_config(config, package):
    assert package_of(Config(config)) == package


def test_types_as_names_and_as_classes():
    assert type_name(dict(type="mmdet.ThreeCrop")) == type_name(dict(type="ThreeCrop"))
    assert type_name(dict(type=argparse.ArgumentParser)) == "ArgumentParser"
    assert type_name({}) == ""


def test_imports_of_the_command_line(detector_config, tmp_path, monkeypatch):
    (tmp_path / "imported_by_an_option.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_config(str(detector_config), {"custom_imports.imports": ["imported_by_an_option"]})
    assert "imported_by_an_option" in sys.modules
    with pytest.raises(UserError, match=r"^--cfg-options: .*nothing_here"):
        load_config(str(detector_config), {"custom_imports.imports": ["nothing_here"]})
