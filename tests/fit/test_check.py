"""Settings of an unexpected type cause an error with one sentence."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.check import check_inputs
from mmvitaccel.fit.files import check_data
from mmvitaccel.runner.config import scale_learning_rate
from mmvitaccel.runner.evaluation import augment_test, deploy, draw_predictions, dump_predictions
from mmvitaccel.runner.random_input import make_example
from mmvitaccel.runner.session import set_work_dir
from mmvitaccel.video.clip_steps import ClipSettings


@pytest.mark.parametrize(
    ("read", "setting", "what"),
    [
        (lambda cfg: check_inputs(cfg, "train"), dict(train_cfg=5), "train_cfg is 5; give a dict"),
        (lambda cfg: check_inputs(cfg, "train"), dict(train_cfg=dict(max_epochs=3),
            param_scheduler=[dict(type="StepLR", end="x")]), "config: .*could not convert string"),
        (lambda cfg: check_data(cfg, "test"), dict(test_cfg={}, test_dataloader=dict(
            dataset=dict(ann_file="a", data_root=["b"]))), "data_root is .*give the path of"),
        (lambda cfg: check_data(cfg, "test"), dict(test_cfg={}, test_dataloader=dict(
            dataset=dict(ann_file=["a"]))), r"ann_file is the list \['a'\]; .*ConcatDataset"),
        (lambda cfg: set_work_dir(cfg, None), dict(work_dir=5), "config: .*NoneType"),
        (scale_learning_rate, dict(auto_scale_lr=5), "config: .*'int' object"),
        (augment_test, dict(test_dataloader=5), "config: .*'int' object"),
        (deploy, dict(custom_hooks=5), "config: .*'int' object"),
        (lambda cfg: draw_predictions(cfg, True, None, 1.0), dict(default_hooks=5), "config: "),
        (lambda cfg: dump_predictions(cfg, 5), {}, "config: .*'int' object"),
        (lambda cfg: make_example(cfg, None), dict(test_dataloader=5), "config: .*'int' object"),
        (ClipSettings.of, dict(val_dataloader=5), "the validation pipeline: .*'int' object"),
    ],
)  # fmt: skip
def test_a_setting_of_another_kind_is_a_sentence(read, setting, what):
    cfg = Config(dict(model=dict(type="M"), **setting))
    with pytest.raises(UserError, match=what):
        read(cfg)


@pytest.mark.parametrize("inside", [True, False])
def test_pixels_are_not_divided_by_nothing(inside):
    part = dict(data_preprocessor=dict(mean=[0.0] * 3, std=[1.0, 0.0, 1.0]))
    cfg = Config(dict(model=part) if inside else dict(part, model=dict(type="M")))
    with pytest.raises(UserError, match=r"data_preprocessor\.std is \[1\.0, 0\.0, 1\.0\]"):
        check_inputs(cfg)


@pytest.mark.parametrize("key", ["bgr_to_rgb", "rgb_to_bgr"])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_order_of_three_channels_is_of_three(key, channels):
    model = dict(
        backbone=dict(type="Eventful", backbone=dict(in_channels=channels)),
        data_preprocessor={key: True},
    )
    sentence = rf"{key} reorders three .*in_channels is {channels}; set .*\.{key}=False"
    with pytest.raises(UserError, match=sentence):
        check_inputs(Config(dict(model=model)))
    model["data_preprocessor"] = {key: False}
    check_inputs(Config(dict(model=model)))
    model["data_preprocessor"], model["backbone"] = {key: True}, dict(in_channels=3)
    check_inputs(Config(dict(model=model)))


@pytest.mark.parametrize(
    "key", ["train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "default_hooks"]
)
def test_another_value_in_the_place_of_a_dict(key):
    with pytest.raises(UserError, match=rf"{key} is \[1\]; give a dict"):
        check_inputs(Config({"model": {}, key: [1]}), "train", "val", "test")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            dict(model=dict(backbone="ResNet")),
            r"model\.backbone is the text 'ResNet'; give a dict, as",
        ),
        (
            dict(model={}, default_hooks=dict(checkpoint="CheckpointHook")),
            r"default_hooks\.checkpoint is the text 'CheckpointHook'; give a dict",
        ),
        (
            dict(model={}, test_evaluator="CocoMetric"),
            r"test_evaluator is the text 'CocoMetric'; give a dict",
        ),
        (dict(model={}, custom_hooks=dict(type="EMAHook")), r"custom_hooks is .*give a list"),
        (
            dict(model=dict(data_preprocessor=dict(pad_size_divisor=0))),
            r"model\.data_preprocessor\.pad_size_divisor is 0; give 1 or more",
        ),
    ],
)
def test_parts_of_another_kind(given, sentence):
    with pytest.raises(UserError, match=sentence):
        check_inputs(Config(given), "train")


def test_wrappers_and_classes_without_anything():
    data = dict(type="CocoDataset", metainfo=dict(classes=[]))
    loader = dict(dataset=data)
    cfg = Config(dict(default_scope="mmdet", model={}, val_cfg={}, val_dataloader=loader))
    with pytest.raises(UserError, match=r"dataset\.metainfo\.classes is \[\]: no object would"):
        check_inputs(cfg, "val")
    cfg.val_dataloader.dataset = dict(type="RepeatDataset", times=-1, dataset=data)
    with pytest.raises(UserError, match=r"^val_dataloader\.dataset\.times is -1; give 1 or more"):
        check_inputs(cfg, "val")
    cfg.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[])
    with pytest.raises(UserError, match=r"^val_dataloader\.dataset\.datasets is empty; give one"):
        check_inputs(cfg, "val")
