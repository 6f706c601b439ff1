from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.runner.tested_data import training_data

TEST = dict(type="Set", ann_file="test", pipeline=["load", "pack"])
TRAIN = dict(type="Set", ann_file="train", pipeline=["load", "flip", "pack"])
AS_TESTED = dict(type="Set", ann_file="train", pipeline=["load", "pack"], test_mode=True)


def config(train, test=TEST):
    return Config(dict(train_dataloader=dict(dataset=train), test_dataloader=dict(dataset=test)))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (TRAIN, AS_TESTED),
        (dict(type="RepeatDataset", times=3, dataset=TRAIN), AS_TESTED),
        (dict(type="MultiImageMixDataset", pipeline=["mosaic"], dataset=TRAIN), AS_TESTED),
        (
            dict(type="ConcatDataset", datasets=[TRAIN, dict(TRAIN, ann_file="more")]),
            dict(type="ConcatDataset", datasets=[AS_TESTED, dict(AS_TESTED, ann_file="more")]),
        ),
    ],
    ids=lambda value: value["type"],
)
def test_each_sample_once_through_the_tests_pipeline(train, expected):
    cfg = config(train)
    before = cfg.to_dict()
    assert training_data(cfg) == expected
    assert training_data(config(train, dict(type="Wrapper", dataset=TEST))) == expected
    assert cfg.to_dict() == before


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_is_missing_is_named(split):
    cfg = config(TRAIN)
    cfg[f"{split}_dataloader"] = None
    with pytest.raises(UserError, match=f"no {split}_dataloader"):
        training_data(cfg)
