from __future__ import annotations

import json
import shutil
import warnings

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.evaluators import check_averaged, check_evaluators
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


@pytest.fixture
def other(boxes):
    """Write another json for the evaluator, of the same image ids."""

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
    with pytest.warns(UserWarning, match=r"other\.json .* same pictures and differ in the rest"):
        check(detector_config, path)


def test_scores_of_views_are_refused_where_samples_are_scored(recognizer_config):
    cfg = load_config(str(recognizer_config), {})
    check_averaged(cfg, build_model(cfg), "val", "test")
    cfg.model.cls_head.average_clips = None
    model = build_model(cfg)
    with pytest.raises(UserError, match=r"val_evaluator .*average_clips is None.*='prob'"):
        check_averaged(cfg, model, "val", "test")
    cfg.val_evaluator = cfg.test_evaluator = dict(type="mmvitaccel.MacsMetric")
    check_averaged(cfg, model, "val", "test")
