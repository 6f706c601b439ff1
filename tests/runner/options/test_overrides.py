from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.options.overrides import differences, read_again, set_at

CONFIGS = Path(__file__).parents[3] / "configs"
DEMO = str(CONFIGS / "demo" / "retinanet_efficientvit_synthetic.py")
VID = str(CONFIGS / "eventful" / "tiny" / "faster-rcnn_vitdet-tiny_vid-128_dense.py")
VIVIT = str(CONFIGS / "vivit" / "vivit-tiny_16x1x1_motion-clips.py")
VITDET = str(CONFIGS / "vitdet" / "mask-rcnn_vitdet-b_lsj-100e_coco.py")

LAZY_BASE = """
from mmengine.dataset import DefaultSampler
epochs = 12
size = (8, 8)
model = dict(type='A', size=size)
val_dataloader = dict(batch_size=2, sampler=dict(type=DefaultSampler))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=epochs)
"""
LAZY = """
from mmengine.config import read_base
with read_base():
    from .base import *
interval = 2
train_cfg.update(val_interval=interval)
"""


@pytest.fixture
def lazy(tmp_path):
    (tmp_path / "base.py").write_text(LAZY_BASE)
    (tmp_path / "child.py").write_text(LAZY)
    return str(tmp_path / "child.py")


@pytest.mark.parametrize(
    ("config", "key", "value", "cure"),
    [
        (DEMO, "epochs", 1, "train_cfg.max_epochs=1"),
        (DEMO, "epochs", 1, "param_scheduler.1.end=1"),
        (DEMO, "batch_size", 2, "train_dataloader.batch_size=2 val_dataloader.batch_size=2"),
        (DEMO, "lr", 1e-5, "optim_wrapper.optimizer.lr=1e-05"),
        (DEMO, "data_root", "B/", "train_dataloader.dataset.data_root=B/"),
        (DEMO, "data_root", "B/", "val_evaluator.ann_file=B/annotations/instances_val.json"),
        (DEMO, "img_size", 96, "'train_dataloader.dataset.pipeline.2.scale=(96,96)'"),
        (DEMO, "classes", ["a", "b"], "model.bbox_head.num_classes=2"),
        (DEMO, "train_pipeline.3.prob", 0.1, "train_dataloader.dataset.pipeline.3.prob=0.1"),
        (VID, "data_root", "B/", "test_evaluator.0.ann_file=B/"),
        (VITDET, "max_epochs", 5, "train_cfg.max_"),
    ],
)
def test_variables_that_were_used_up_are_refused_with_the_keys_that_work(config, key, value, cure):
    with pytest.raises(UserError) as caught:
        load_config(config, {key: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"--cfg-options {key}: {key.partition('.')[0]} was used up")
    assert cure in sentence


def own_variables(path: str) -> list[str]:
    if path == VIVIT:
        pytest.importorskip("mmaction", reason="mmaction2 is not installed")
    from mmvitaccel.runner.options.keys import RUNNER_KEYS

    return [key for key in load_config(path, {}) if key not in RUNNER_KEYS]


@pytest.mark.parametrize("path", [DEMO, VID, VIVIT, VITDET])
def test_no_variable_of_a_shipped_config_passes_in_silence(path):
    names = own_variables(path)
    assert names
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises((UserError, UserWarning), match=rf"--cfg-options {name}: "):
                load_config(path, {name: "none of the others"})


def test_what_is_named_works():
    options = {"train_dataloader.batch_size": 2, "val_dataloader.batch_size": 2}
    options["test_dataloader.batch_size"] = 2
    with pytest.raises(UserError, match="was used up") as caught:
        load_config(DEMO, {"batch_size": 2})
    named = str(caught.value).partition("made of it, ")[2].rstrip(".").split()
    assert dict(option.split("=") for option in named) == {k: str(v) for k, v in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg = load_config(DEMO, options)
    assert {cfg[f"{s}_dataloader"].batch_size for s in ("train", "val", "test")} == {2}


def test_a_value_that_the_config_cannot_be_read_with():
    with pytest.raises(UserError, match=r"classes is used up .* fails with 3 \(TypeError"):
        load_config(DEMO, {"classes": 3})


def test_the_same_value_is_no_matter():
    assert load_config(DEMO, {"epochs": 12}).train_cfg.max_epochs == 12


def test_a_variable_of_which_nothing_is_made(tmp_path):
    """As in a config that a run has written: all of it resolved."""
    path = tmp_path / "dumped.py"
    load_config(DEMO, {}).dump(str(path))
    with pytest.warns(UserWarning, match="--cfg-options epochs: nothing in the config is made of"):
        load_config(str(path), {"epochs": 1})


def test_a_tool_that_reads_a_variable_has_all_that_is_made_of_it():
    cfg = load_config(DEMO, {"data_root": "B/", "train_cfg.max_epochs": 2}, reads=["data_root"])
    assert cfg.data_root == cfg.val_dataloader.dataset.data_root == "B/"
    assert cfg.val_evaluator.ann_file == "B/annotations/instances_val.json"
    assert cfg.train_cfg.max_epochs == 2


def test_a_test_loader_that_does_not_follow_is_said():
    with pytest.warns(UserWarning, match=r"do not follow it: test_dataloader\.batch_size=3;"):
        cfg = load_config(DEMO, {"val_dataloader.batch_size": 3})
    assert (cfg.val_dataloader.batch_size, cfg.test_dataloader.batch_size) == (3, 16)
    with pytest.warns(UserWarning, match=r"test_evaluator\.metric=proposal"):
        load_config(DEMO, {"val_evaluator.metric": "proposal"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config(DEMO, {"train_dataloader.batch_size": 3, "model.bbox_head.num_classes": 3})


def test_lazy_configs(lazy):
    with pytest.raises(UserError, match=r"epochs was used up .*of it, train_cfg\.max_epochs=1\."):
        load_config(lazy, {"epochs": 1})
    with pytest.raises(UserError, match=r"made of it, train_cfg\.val_interval=9\."):
        load_config(lazy, {"interval": 9})
    with pytest.raises(UserError, match=r"made of it, 'model\.size=\(4,4\)'\."):
        load_config(lazy, {"size": (4, 4)})
    with pytest.warns(UserWarning, match=r"follow it: test_dataloader\.batch_size=5;"):
        load_config(lazy, {"val_dataloader.batch_size": 5})


def test_reading_again_leaves_the_reader_as_it_was(lazy):
    for path in (lazy, DEMO):
        before = load_config(path, {}).to_dict()
        read_again(path, {"epochs": 3})
        assert not list(differences(before, load_config(path, {}).to_dict()))


def test_set_at_leaves_its_argument():
    value = {"a": [{"b": 1}, 2]}
    assert set_at(value, ["a", "0", "b"], 5) == {"a": [{"b": 5}, 2]}
    assert value == {"a": [{"b": 1}, 2]}
    assert set_at((1, 2), ["0"], 5) == (1, 2)


TUPLES = """
name, (size, *rest) = 'x', (3, 4, 5)
load_from = f'{name}.pth'
for count in (1, 2):
    train_dataloader = dict(dataset=dict(steps=[dict(text=f'{count} of {size}')]))
"""
SUBSTITUTED = """
_base_ = './tuples.py'
chance = __import__('random').random()
model = dict(type='A', inner=dict(size={{_base_.size}}, names=_base_.rest, chance=chance))
"""


@pytest.fixture
def substituted(tmp_path):
    (tmp_path / "tuples.py").write_text(TUPLES)
    (tmp_path / "child.py").write_text(SUBSTITUTED)
    return str(tmp_path / "child.py")


@pytest.mark.parametrize(
    ("key", "value", "cure"),
    [
        ("name", "y", "load_from=y.pth"),
        ("size", 7, "'train_dataloader.dataset.steps.0.text=2 of 7' model.inner.size=7"),
        ("rest", [6, 7], "'model.inner.names=[6,7]'"),
        ("rest.1", 7, "'model.inner.names=[4,7]'"),
        ("count", 9, "'train_dataloader.dataset.steps.0.text=9 of 3'"),
    ],
)
def test_variables_in_tuples_loops_texts_and_bases(substituted, key, value, cure):
    """And what a config draws at random is made of none of them."""
    with pytest.raises(UserError) as caught:
        load_config(substituted, {key: value})
    assert str(caught.value).endswith(f"set what was made of it, {cure}.")


def test_a_variable_beside_all_that_is_made_of_it():
    made = {f"{s}_dataloader.batch_size": 2 for s in ("train", "val", "test")}
    assert load_config(DEMO, {"batch_size": 2} | made).train_dataloader.batch_size == 2
    with pytest.raises(UserError, match=r"made of it, test_dataloader\.batch_size=2\."):
        load_config(DEMO, {"batch_size": 2} | made | {"test_dataloader.batch_size": 3})


def test_a_variable_of_a_json(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model": {"type": "A"}, "epochs": 12, "train_cfg": {"max_epochs": 12}}')
    with pytest.warns(UserWarning, match="--cfg-options epochs: nothing in the config is made of"):
        load_config(str(path), {"epochs": 1})
