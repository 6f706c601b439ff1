from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.files import check_data, check_pretrained, check_pretrained_names


@pytest.fixture
def data(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").write_text("{}")
    return dict(
        type="CocoDataset",
        data_root=str(tmp_path),
        ann_file="a.json",
        data_prefix=dict(img="images"),
    )


def config(dataset, split="train"):
    return Config({f"{split}_dataloader": dict(dataset=dataset), f"{split}_cfg": {}})


def test_data_that_is_there_or_is_elsewhere(data, tmp_path):
    check_data(config(data), "train", "val", "test")
    check_data(config(dict(type="RepeatDataset", dataset=data)), "train")
    check_data(
        config(
            dict(
                data,
                ann_file=str(tmp_path / "a.json"),
                data_root=None,
                data_prefix=dict(img=str(tmp_path)),
            )
        ),
        "train",
    )
    check_data(config(dict(data, data_root="s3://bucket/coco/")), "train")
    check_data(config(dict(data, data_prefix=dict(img=""))), "train")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            dict(data_root="data/nowhere/"),
            r"dataset: the folder data/nowhere/ does not exist; "
            r"link the data set there or set train_dataloader\.dataset\.data_root",
        ),
        (dict(ann_file="b.json"), r"annotation file .*b\.json does not exist"),
        (dict(data_prefix=dict(img="pictures")), r"folder .*pictures .*data_prefix\.img"),
        (dict(data_prefix=dict(img="a.json")), r"a\.json is a file and not a folder; unpack it if"),
    ],
)
def test_data_that_is_missing(data, change, sentence):
    with pytest.raises(UserError, match=sentence):
        check_data(config(data | change), "train")
    check_data(config(data | change), "test")


def test_wrapped_data_is_found(data):
    lacking = data | dict(ann_file="b.json")
    nested = dict(type="A", dataset=dict(type="ConcatDataset", datasets=[data, lacking]))
    with pytest.raises(UserError, match=r"^test_dataloader\.dataset\.dataset\.datasets\.1: "):
        check_data(config(nested, "test"), "test")


def test_splits_that_are_switched_off_are_not_looked_at(data):
    cfg = config(data | dict(ann_file="b.json"), "val")
    cfg.val_cfg = None
    check_data(cfg, "val")


def test_pretrained_weights(tmp_path):
    model = dict(backbone=dict(init_cfg=[dict(type="Pretrained", checkpoint="none.pth")]))
    with pytest.raises(UserError, match=r"model\.backbone\.init_cfg\.0\.checkpoint none\.pth"):
        check_pretrained(model)
    for checkpoint in ("torchvision://resnet50", "https://host/x.pth", str(tmp_path)):
        check_pretrained(dict(init_cfg=dict(type="Pretrained", checkpoint=checkpoint)))


class Backbone(BaseModule):
    def __init__(self, **given):
        super().__init__(**given)
        self.stem, self.body = nn.Linear(2, 2), nn.Linear(2, 2)


class Converting(Backbone):
    def init_weights(self):
        """As mmdet's Swin, which changes the names."""


@pytest.fixture
def named(tmp_path):
    """A detector whose backbone starts from a file with its names behind a prefix."""

    def make(front: str, kind=Backbone, **init_cfg):
        path = str(tmp_path / "b.pth")
        weights = {f"{front}{key}": value for key, value in Backbone().state_dict().items()}
        torch.save(dict(state_dict=weights | {"head.fc.weight": torch.zeros(1)}), path)
        detector = BaseModule()
        detector.backbone = kind(init_cfg=dict(type="Pretrained", checkpoint=path, **init_cfg))
        return detector

    return make


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_backbone_starts_from_its_own_names(named, prefix):
    check_pretrained_names(named(prefix))
    check_pretrained_names(named("backbone.", prefix="backbone."))
    check_pretrained_names(named("other.", Converting))


def test_a_backbone_that_would_start_from_random_weights(named):
    sentence = (
        r"^model\.backbone\.init_cfg\.checkpoint \S+/b\.pth has none of Backbone's names \(its "
    )
    with pytest.raises(UserError, match=sentence + ".*set model.backbone.init_cfg.prefix=backbone"):
        check_pretrained_names(named("backbone."))
    with pytest.raises(UserError, match=r"below 'a\.b', set .*prefix=a\.b\.$"):
        check_pretrained_names(named("a.b."))
    detector = named("")
    detector.backbone.stem = detector.backbone.body = nn.Identity()
    detector.backbone.register_buffer("own", torch.zeros(1))
    with pytest.raises(UserError, match="give a checkpoint of this module"):
        check_pretrained_names(detector)
