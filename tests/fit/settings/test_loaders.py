"""Data loaders whose first batch would end in a traceback, or which leave samples out."""

from __future__ import annotations

import warnings

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.loaders import check_filter, check_loaders


def config(**loader) -> Config:
    return Config(dict(train_cfg={}, val_cfg={}, train_dataloader=loader, val_dataloader=loader))


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        (dict(batch_size=None), "batch_size is None; give 1 or more"),
        (dict(batch_size=0), "batch_size is 0; give 1 or more"),
        (dict(batch_size="two"), "batch_size is 'two'; give a whole number"),
        (dict(batch_size=2.5), "batch_size is 2.5; give a whole number"),
        (dict(num_workers=-1), "num_workers is -1; give 0 or more"),
        (dict(num_workers=1.5), "num_workers is 1.5; give a whole number"),
        (dict(num_workers=2, prefetch_factor=0), "prefetch_factor is 0; give 1 or more"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_numbers_of_a_loader(split, loader, sentence):
    with pytest.raises(UserError, match=rf"^{split}_dataloader\.{sentence}"):
        check_loaders(config(**loader), split)
    switched_off = Config(dict(config(**loader), train_cfg=None, val_cfg=None))
    check_loaders(switched_off, split)


def test_loaders_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_loaders(config(batch_size=2, num_workers=0, prefetch_factor=0), "train", "val")
        check_loaders(config(batch_size=1, drop_last=True), "train", "val")
        check_loaders(config(batch_size=2, drop_last=False, num_workers=2), "train", "val")
        check_loaders(config(batch_size=2, drop_last=True, prefetch_factor=None), "train")
        check_loaders(config(sampler=None), "train", "val")


def test_samples_that_are_not_scored():
    with pytest.warns(
        UserWarning, match=r"val_dataloader\.drop_last is True: samples that fill no"
    ):
        check_loaders(config(batch_size=2, drop_last=True), "train", "val")


def test_misspelt_filters():
    with pytest.warns(UserWarning, match=r"d\.filter_cfg has the key 'min_sise'.*mean 'min_size'"):
        check_filter("d", dict(filter_cfg=dict(min_sise=32, filter_empty_gt=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (dict(min_size=32, bbox_min_size=1, filter_empty_gt=True), dict(own=1), None):
            check_filter("d", dict(filter_cfg=given))
