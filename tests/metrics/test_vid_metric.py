from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.registry import METRICS

CLASSES = ("cat", "dog")


@pytest.fixture
def log():
    """Lines that mmengine's current logger got."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def build(ann_file, classes=CLASSES, **kwargs):
    metric = METRICS.build(dict(type="mmvitaccel.VIDMetric", ann_file=str(ann_file), **kwargs))
    metric.dataset_meta = {"classes": classes}
    return metric


def predictions(ann_file, seed=0, spread=2.0, wrong=3) -> list[dict]:
    """For each frame of the json its objects, displaced, and some boxes anywhere."""
    content = json.loads(ann_file.read_text())
    rng = np.random.default_rng(seed)
    samples = []
    for image in content["images"]:
        objects = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in objects)]
        labels = [a["category_id"] - 1 for a in objects]
        boxes += rng.uniform(0, 40, (wrong, 4)).tolist()
        labels += rng.integers(0, 2, wrong).tolist()
        boxes = np.array(boxes) + rng.normal(0, spread, (len(boxes), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        samples.append(
            {
                "img_id": image["id"],
                "pred_instances": {
                    "bboxes": torch.tensor(boxes, dtype=torch.float32),
                    "scores": torch.tensor(rng.uniform(0.05, 1, len(boxes)), dtype=torch.float32),
                    "labels": torch.tensor(labels),
                },
            }
        )
    return samples


def score(metric, samples, size=None) -> dict:
    for start in range(0, len(samples), 3):
        metric.process(None, samples[start : start + 3])
    return metric.evaluate(len(samples) if size is None else size)


def overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inter / (areas - inter)


def slow_mean_ap(ann_file, samples, threshold=0.5) -> float:
    """Mean over classes of the average precision at 101 recalls, written from the definition."""
    content = json.loads(ann_file.read_text())
    of_classes = []
    for category in content["categories"]:
        truth = {}
        for a in content["annotations"]:
            if a["category_id"] == category["id"]:
                x, y, w, h = a["bbox"]
                truth.setdefault(a["image_id"], []).append([x, y, x + w, y + h])
        total = sum(len(boxes) for boxes in truth.values())
        found = []
        for sample in samples:
            pred = sample["pred_instances"]
            mine = [
                (s, b)
                for s, b, c in zip(
                    pred["scores"].tolist(), pred["bboxes"].tolist(), pred["labels"].tolist()
                )
                if c == category["id"] - 1
            ]
            free = list(truth.get(sample["img_id"], []))
            for s, box in sorted(mine, key=lambda item: -item[0]):
                best = max(free, key=lambda t: overlap(box, t), default=None)
                hit = best is not None and overlap(box, best) >= threshold
                if hit:
                    free.remove(best)
                found.append((s, hit))
        found.sort(key=lambda item: -item[0])
        hits = np.cumsum([hit for _, hit in found])
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / total
        at_recalls = [max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
        of_classes.append(np.mean(at_recalls))
    return 100 * float(np.mean(of_classes))


@pytest.mark.parametrize("seed", range(5))
def test_map50_equals_the_definition(write_cocovid, seed):
    path = write_cocovid(lengths=(5, 7), pictures=False)
    samples = predictions(path, seed)
    figures = score(build(path), samples)
    assert figures.keys() == {"vid/mAP50"}
    assert figures["vid/mAP50"] == pytest.approx(slow_mean_ap(path, samples), abs=1e-9)
    assert 0 < figures["vid/mAP50"] < 100


def test_two_decimals_of_a_percent_can_appear(write_cocovid, log):
    path = write_cocovid(lengths=(20, 20), pictures=False)
    figure = score(build(path), predictions(path))["vid/mAP50"]
    assert abs(figure - round(figure, 1)) > 1e-3, "the figure must not be rounded to 0.1 %"
    assert f"VID: mAP50 {figure:.2f} % (40 frames, 200 boxes)" in log


def test_several_overlaps_and_classes(write_cocovid):
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)
    figures = score(build(path, iou_thrs=(0.5, 0.75), classwise=True), samples)
    assert figures["vid/mAP75"] == pytest.approx(slow_mean_ap(path, samples, 0.75), abs=1e-9)
    assert figures["vid/mAP"] == pytest.approx(
        (figures["vid/mAP50"] + figures["vid/mAP75"]) / 2, abs=1e-9
    )
    assert figures["vid/mAP50"] == pytest.approx(
        (figures["vid/AP50/cat"] + figures["vid/AP50/dog"]) / 2, abs=1e-9
    )


def test_every_frame_is_scored_also_where_the_dataset_counts_videos(write_cocovid):
    """mmdet's CocoMetric keeps the first 2 of these 10 frames and says nothing."""
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)
    truth = slow_mean_ap(path, samples)
    assert score(build(path), samples, size=2)["vid/mAP50"] == pytest.approx(truth, abs=1e-9)
    assert truth != pytest.approx(slow_mean_ap(path, samples[:2]), abs=1)


@pytest.mark.parametrize("lost", range(0, 10, 3))
def test_a_lost_frame_is_an_error(write_cocovid, lost):
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)
    del samples[lost]
    with pytest.raises(RuntimeError, match=rf"9 of the 10 frames.*img_id {lost + 1} is the first"):
        score(build(path), samples, size=10)


def test_each_frame_changes_the_figure(write_cocovid):
    """No frame is ignored: without its boxes the figure falls."""
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path, spread=0.0, wrong=0)
    assert score(build(path), samples)["vid/mAP50"] == pytest.approx(100)
    for frame in samples:
        kept = frame["pred_instances"]
        frame["pred_instances"] = {name: values[:0] for name, values in kept.items()}
        assert score(build(path), samples)["vid/mAP50"] < 91
        frame["pred_instances"] = kept


def test_a_dataset_cut_short_is_scored_alone_and_says_so(write_cocovid, log):
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)[:4]
    figure = score(build(path), samples)["vid/mAP50"]
    assert any("4 of the 10 frames" in line for line in log)
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 4]
    path.write_text(json.dumps(content))
    assert figure == pytest.approx(slow_mean_ap(path, samples), abs=1e-9)


def test_repeated_frames_count_once(write_cocovid):
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)
    once = score(build(path), samples)
    assert score(build(path), samples + samples[:3], size=10) == once


def test_order_of_json_and_of_results_does_not_matter(write_cocovid):
    path = write_cocovid(lengths=(5, 5), pictures=False, name="a.json")
    other = write_cocovid(lengths=(5, 5), pictures=False, name="b.json", shuffle=3)
    samples = predictions(path)
    for sample in samples:  # many equal scores: ties must not depend on the order
        sample["pred_instances"]["scores"] = sample["pred_instances"]["scores"].round(decimals=1)
    assert score(build(path), samples) == score(build(other), samples[::-1])


def test_an_object_with_id_zero_counts(write_cocovid):
    path = write_cocovid(lengths=(1,), classes=("cat",), pictures=False)
    content = json.loads(path.read_text())
    content["annotations"][0]["id"] = 0
    path.write_text(json.dumps(content))
    samples = predictions(path, spread=0.0, wrong=0)
    assert score(build(path, classes=("cat",)), samples)["vid/mAP50"] == pytest.approx(100)


def test_nothing_found_is_zero(write_cocovid):
    path = write_cocovid(lengths=(2, 1), pictures=False)
    samples = predictions(path)
    for sample in samples:
        pred = sample["pred_instances"]
        sample["pred_instances"] = {name: values[:0] for name, values in pred.items()}
    assert score(build(path), samples) == {"vid/mAP50": 0.0}


def test_classes_are_matched_by_name(write_cocovid):
    path = write_cocovid(lengths=(3,), pictures=False)
    samples = predictions(path)
    straight = score(build(path), samples)
    for sample in samples:
        sample["pred_instances"]["labels"] = 1 - sample["pred_instances"]["labels"]
    assert score(build(path, classes=("dog", "cat")), samples) == straight


def test_frames_of_another_set_are_an_error(write_cocovid):
    path = write_cocovid(lengths=(3,), pictures=False)
    samples = predictions(path)
    samples[0]["img_id"] = 77
    with pytest.raises(RuntimeError, match=r"1 scored frames, such as img_id 77, are not in .*vid"):
        score(build(path), samples)


def test_overlap_out_of_range(write_cocovid):
    with pytest.raises(ValueError, match=r"iou_thrs=\(50,\).*in \(0, 1\]"):
        build(write_cocovid(pictures=False), iou_thrs=(50,))


def test_missing_truth_is_said_before_anything_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"val\.json is not there"):
        build(tmp_path / "val.json")


def test_figures_of_classes_carry_their_names_in_any_order(write_cocovid):
    path = write_cocovid(lengths=(5, 5), pictures=False)
    samples = predictions(path)
    for sample in samples:  # dogs are never found
        labels = sample["pred_instances"]["labels"]
        kept = labels == 0
        sample["pred_instances"] = {k: v[kept] for k, v in sample["pred_instances"].items()}
    straight = score(build(path, classwise=True), samples)
    assert straight["vid/AP50/cat"] > straight["vid/AP50/dog"] == 0
    for sample in samples:
        sample["pred_instances"]["labels"] = 1 - sample["pred_instances"]["labels"]
    turned = score(build(path, classes=("dog", "cat"), classwise=True), samples)
    assert turned == straight
