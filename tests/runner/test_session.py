from __future__ import annotations

import pytest
from mmengine.hooks import Hook

from mmvitaccel.errors import UserError
from mmvitaccel.registry import HOOKS
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model, run, set_work_dir


@HOOKS.register_module()
class StumblingHook(Hook):
    """Raises at a chosen point."""

    def __init__(self, point: str, iteration: int = 0) -> None:
        self.point, self.iteration = point, iteration

    def before_train(self, runner):
        if self.point == "before_train":
            raise ValueError("the hook refuses")

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (self.point, self.iteration) == ("before_train_iter", batch_idx):
            raise FileNotFoundError("there is no image.jpg")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.point == "after_train_iter":
            raise ValueError("the hook stumbled")


def config(path, **options):
    cfg = load_config(str(path), {"val_cfg": None, "val_dataloader": None, **options})
    cfg.val_evaluator = None
    set_work_dir(cfg, str(path.parent / "runs" / "one"))
    return cfg


def test_work_dir(detector_config):
    cfg = load_config(str(detector_config), {})
    set_work_dir(cfg, None)
    assert cfg.work_dir == "work_dirs/detector"
    set_work_dir(cfg, "elsewhere")
    assert cfg.work_dir == "elsewhere"
    set_work_dir(cfg, None)
    assert cfg.work_dir == "elsewhere"


def test_data_preprocessor_beside_the_model_is_used(detector_config):
    cfg = load_config(str(detector_config), {})
    cfg.data_preprocessor = cfg.model.pop("data_preprocessor")
    assert build_model(cfg).data_preprocessor.pad_size_divisor == 32
    assert "data_preprocessor" not in cfg.model


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"train_dataloader.dataset.filter": 1}, "CocoDataset has no argument 'filter'"),
        ({"default_hooks.logger.intervall": 2}, "LoggerHook has no argument 'intervall'"),
        ({"train_dataloader.batch_sizee": 2}, "batch_sizee"),
        ({"optim_wrapper.optimizer.type": "SGDD"}, "type 'SGDD' is not in mmengine's optimizer"),
        ({"train_cfg.type": "EpochBasdTrainLoop"}, "did you mean 'EpochBasedTrainLoop'"),
        ({"model.backbone.out_indices": [2]}, r"^model: in neck \(FPN\): assert len\(inputs\)"),
    ],
)
def test_a_mistake_in_the_config_leaves_nothing_behind(detector_config, option, sentence):
    with pytest.raises(UserError, match=sentence):
        run(config(detector_config, **option), "train")
    assert not (detector_config.parent / "runs").exists()


def test_a_work_dir_that_was_there_is_kept(detector_config):
    work_dir = detector_config.parent / "runs" / "one"
    work_dir.mkdir(parents=True)
    (work_dir / "mine.txt").write_text("kept")
    with pytest.raises(UserError):
        run(config(detector_config, **{"train_dataloader.batch_sizee": 2}), "train")
    assert (work_dir / "mine.txt").read_text() == "kept"


def hook(point, iteration=0):
    return {
        "default_hooks.stumble": dict(
            type="mmvitaccel.StumblingHook", point=point, iteration=iteration
        )
    }


def test_once_iterations_were_done_the_work_dir_stays(detector_config):
    with pytest.raises(UserError, match=r"there is no image\.jpg"):
        run(config(detector_config, **hook("before_train_iter", 1)), "train")
    assert list((detector_config.parent / "runs" / "one").glob("*/*.log"))
    with pytest.raises(UserError, match=r"there is no image\.jpg"):
        cfg = config(detector_config, **hook("before_train_iter", 0))
        set_work_dir(cfg, str(detector_config.parent / "other"))
        run(cfg, "train")
    assert not (detector_config.parent / "other").exists()


def test_errors_of_a_program_keep_their_traceback(detector_config):
    with pytest.raises(ValueError, match="the hook stumbled"):
        run(config(detector_config, **hook("after_train_iter")), "train")
    with pytest.raises(UserError, match="the hook refuses"):
        run(config(detector_config, **hook("before_train")), "train")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"batch_size": 64, "drop_last": True},
            r"gives no batch: its data set has 5 samples, and drop_last leaves out",
        ),
        (
            {"dataset.indices": 0},
            r"^config: CocoDataset: no sample is left; correct the",
        ),
    ],
    ids=["drop_last", "no sample"],
)
def test_a_run_without_a_step_is_refused(detector_config, tmp_path, options, sentence):
    cfg = config(detector_config, **{f"train_dataloader.{k}": v for k, v in options.items()})
    with pytest.raises(UserError, match=sentence):
        run(cfg, "train")
    assert not (tmp_path / "runs").exists()
