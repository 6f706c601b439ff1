from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.evaluators import check_evaluators, check_predictions
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


@pytest.fixture
def other(boxes):
    """Write another json for the evaluator, with the same image ids."""

    def write(change) -> str:
        content = json.loads((boxes / "boxes.json").read_text())
        change(content)
        (boxes / "other.json").write_text(json.dumps(content))
        return str(boxes / "other.json")

    return write


def check(detector_config, path: str) -> None:
    check_evaluators(load_config(str(detector_config), {"test_evaluator.ann_file": path}), "test")


def test_the_same_file_by_another_path_or_a_copy(detector_config, boxes):
    shutil.copy(boxes / "boxes.json", boxes / "copy.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in ("copy.json", f"../{boxes.name}/boxes.json"):
            check(detector_config, str(boxes / path))


def test_other_pictures_of_the_same_ids(detector_config, other):
    path = other(lambda content: content["images"][3].update(file_name="another.png"))
    with pytest.raises(UserError, match=r"test_evaluator\.ann_file is .*other\.json and "
                                        r"test_dataloader\.dataset\.ann_file is .*boxes\.json: "
                                        r"picture 3 is another\.png there"):  # fmt: skip
        check(detector_config, path)


def test_other_pictures_are_found_before_a_training_that_validates(
    run_tool, detector_config, other, capsys, tmp_path
):
    path = other(lambda content: content["images"][3].update(file_name="another.png"))
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config, "--cfg-options", f"val_evaluator.ann_file={path}")
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: val_evaluator.ann_file is {path} and val_dataloader.dataset.")
    assert "picture 3 is another.png there and 3.png here" in error
    assert not (tmp_path / "work_dirs").exists()


def test_a_picture_that_is_not_in_it(detector_config, other):
    with pytest.raises(UserError, match=r"which has no picture 4 \(4\.png\)"):
        check(detector_config, other(lambda content: content["images"].pop()))


def test_other_boxes_are_a_warning(detector_config, other):
    path = other(lambda content: content["annotations"].pop())
    with pytest.warns(UserWarning, match=r"other\.json .* same pictures but differ otherwise"):
        check(detector_config, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c["categories"].reverse(),
            r"other\.json has these in the order 'dark', 'bright'",
        ),
        (lambda c: c["categories"].pop(), r"has 'dark', which .*other\.json lacks"),
        (lambda c: c["categories"][1].update(name="Dark"), r"has 'dark', which .*did you mean"),
    ],
)
def test_labels_are_scored_by_the_evaluators_categories(detector_config, other, change, sentence):
    differ = pytest.warns(UserWarning, match="differ otherwise")
    with differ, pytest.raises(UserError, match=sentence):
        check(detector_config, other(change))


def test_an_evaluator_that_sorts_categories(detector_config, other):
    cfg = load_config(str(detector_config), {})
    cfg.test_evaluator.ann_file = other(lambda content: content["categories"].reverse())
    cfg.test_evaluator.sort_categories = True
    with pytest.warns(UserWarning, match="differ otherwise"):
        check_evaluators(cfg, "test")


@pytest.fixture
def two_sets(detector_config, boxes):
    """A config that tests two data sets at once; the second json has other picture ids."""

    def make(shift: int, **evaluator):
        content = json.loads((boxes / "boxes.json").read_text())
        joined = json.loads((boxes / "boxes.json").read_text())
        for record in content["images"]:
            record.update(id=record["id"] + shift, file_name=f"b{record['file_name']}")
        for record in content["annotations"]:
            record.update(id=record["id"] + 100, image_id=record["image_id"] + shift)
        (boxes / "second.json").write_text(json.dumps(content))
        for key in ("images", "annotations"):
            joined[key] += content[key]
        (boxes / "joined.json").write_text(json.dumps(joined))
        cfg = load_config(str(detector_config), {})
        first = cfg.test_dataloader.dataset
        # Without a json to score by, samples carry their annotations
        first.pipeline[-1].meta_keys += ("instances",)
        second = first.copy()
        second.ann_file = "second.json"
        cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[first, second])
        cfg.test_evaluator = dict(type="CocoMetric", **evaluator)
        return cfg

    return make


@pytest.mark.parametrize("given", [True, False])
def test_sets_that_are_scored_together_share_no_id(two_sets, boxes, given):
    evaluator = dict(ann_file=str(boxes / "joined.json")) if given else {}
    sentence = r"datasets\.0 and test_dataloader\.dataset\.datasets\.1 both have a picture with the"
    with pytest.raises(UserError, match=sentence + r" id 2 \(2\.png and b0\.png\)"):
        check_evaluators(two_sets(2, **evaluator), "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_evaluators(two_sets(5, **evaluator), "test")


def test_sets_that_are_scored_together_are_in_one_json(two_sets, boxes):
    with pytest.raises(UserError, match=r"which has no picture 5 \(b0\.png\)"):
        check_evaluators(two_sets(5, ann_file=str(boxes / "boxes.json")), "test")


@pytest.mark.parametrize("metric", ["segm", ["bbox", "segm"]])
def test_masks_that_a_model_does_not_make(detector_config, metric):
    cfg = load_config(str(detector_config), {})
    model = build_model(cfg)
    check_predictions(cfg, model, "test")
    cfg.test_evaluator.metric = metric
    with pytest.raises(UserError, match=r"^test_evaluator\.metric has 'segm', but the model"):
        check_predictions(cfg, model, "test")
    model.mask_head = torch.nn.Identity()
    check_predictions(cfg, model, "test")


def test_ranks_below_the_number_of_classes():
    head = torch.nn.Module()
    head.num_classes = 3
    model = torch.nn.Module()
    model.head = head
    cfg = Config(dict(test_evaluator=[dict(type="Accuracy", topk=(1, 3))]))
    check_predictions(cfg, model, "test")
    cfg.test_evaluator[0].topk = (1, 5)
    sentence = r"^test_evaluator\.0\.topk is \(1, 5\), but model\.head\.num_classes is 3; "
    with pytest.raises(UserError, match=sentence):
        check_predictions(cfg, model, "test")


def test_scores_of_views_are_refused_where_samples_are_scored(recognizer_config):
    cfg = load_config(str(recognizer_config), {})
    check_predictions(cfg, build_model(cfg), "val", "test")
    cfg.model.cls_head.average_clips = None
    model = build_model(cfg)
    with pytest.raises(UserError, match=r"val_evaluator .*average_clips is None.*='prob'"):
        check_predictions(cfg, model, "val", "test")
    cfg.val_evaluator = cfg.test_evaluator = dict(type="mmvitaccel.MacsMetric")
    check_predictions(cfg, model, "val", "test")
    cfg.val_evaluator = dict(type="AccMetric")
    model.cls_head.average_clips = "mean"
    with pytest.raises(UserError, match=r"average_clips is 'mean'; give 'prob' or 'score'"):
        check_predictions(cfg, model, "val")
