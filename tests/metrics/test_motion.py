"""Average precision of slow, medium and fast objects against a reference from the definition."""

from __future__ import annotations

import json
import logging
import pickle

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.metrics.object_motion import group_of, motion_groups
from mmvitaccel.registry import METRICS

CLASSES = ("cat", "dog")
SPEEDS = ("slow", "medium", "fast")


def write(path, tracks, lengths) -> None:
    """A CocoVID json of ``(video, instance, category, {frame: box})``."""
    images, place = [], {}
    for video, frames in lengths.items():
        for frame in range(frames):
            place[video, frame] = len(images) + 1
            image = dict(id=len(images) + 1, video_id=video, frame_id=frame, width=400, height=400)
            images.append(dict(image, file_name=f"{video}/{frame}.png"))
    annotations = []
    for video, instance, category, boxes in tracks:
        for frame, box in boxes.items():
            thing = dict(category_id=category, instance_id=instance, bbox=list(box), iscrowd=0)
            thing.update(id=len(annotations) + 1, image_id=place[video, frame])
            annotations.append(dict(thing, area=box[2] * box[3]))
    categories = [dict(id=n, name=name) for n, name in enumerate(CLASSES, 1)]
    videos = [dict(id=video, name=str(video)) for video in lengths]
    content = dict(images=images, annotations=annotations, categories=categories, videos=videos)
    path.write_text(json.dumps(content))


def drawn(path, seed, lengths=(25, 14)) -> None:
    """Videos with objects of every speed, tracks with gaps and some of one frame."""
    rng = np.random.default_rng(seed)
    tracks = []
    for video, length in enumerate(lengths, 1):
        for instance, speed in enumerate((0.1, 0.2, 1.5, 2.0, 12.0, 25.0), 1):
            start, size = rng.uniform(0, 150, 2), rng.uniform(30, 60, 2)
            way = rng.normal(size=2)
            way *= speed / np.linalg.norm(way)
            frames = [n for n in range(length) if rng.random() > 0.2]
            if instance == 6 and video == 2:
                frames = frames[:1]
            boxes = {n: [*(start + n * way + rng.normal(0, 0.05, 2)), *size] for n in frames}
            tracks.append((video, instance, int(rng.integers(1, 3)), boxes))
    write(path, tracks, dict(enumerate(lengths, 1)))


def found(path, seed, wrong=3) -> list[dict]:
    content, rng = json.loads(path.read_text()), np.random.default_rng(seed)
    samples = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        own = [a for a in own if rng.random() > 0.2]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]
        labels = [a["category_id"] - 1 if rng.random() > 0.1 else int(rng.integers(0, 2))
                  for a in own]  # fmt: skip
        boxes += [[x, y, x + 40, y + 40] for x, y in rng.uniform(0, 300, (wrong, 2))]
        labels += rng.integers(0, 2, wrong).tolist()
        boxes = np.array(boxes) + rng.normal(0, 3, (len(boxes), 4))
        instances = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float64),
            scores=torch.tensor(rng.uniform(0.05, 1, len(boxes))),
            labels=torch.tensor(labels),
        )
        samples.append(dict(img_id=image["id"], pred_instances=instances))
    return samples


def iou(a, b) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def slow_reference(path, samples, speed) -> float:
    """From the paper and its released evaluation, object by object."""
    content = json.loads(path.read_text())
    frame_of = {i["id"]: (i["video_id"], i["frame_id"]) for i in content["images"]}
    objects = []
    for a in content["annotations"]:
        video, frame = frame_of[a["image_id"]]
        near = []
        for b in content["annotations"]:
            other_video, other_frame = frame_of[b["image_id"]]
            same = (other_video, b["instance_id"]) == (video, a["instance_id"])
            if same and 0 < abs(other_frame - frame) <= 10:
                near.append(iou(corners(a["bbox"]), corners(b["bbox"])))
        motion = np.mean(near) if near else 0.0
        name = "slow" if motion > 0.9 else "fast" if motion < 0.7 else "medium"
        objects.append((a["image_id"], a["category_id"] - 1, corners(a["bbox"]), name))
    share = np.mean([name == speed for *_, name in objects])
    means = []
    for label in range(2):
        total = sum(o[1] == label and o[3] == speed for o in objects)
        if not total:
            continue
        outcomes = []
        for sample in samples:
            here = [o for o in objects if o[0] == sample["img_id"]]
            free = [o for o in here if o[1] == label]
            pred = sample["pred_instances"]
            mine = sorted(
                (-s, b)
                for s, b, c in zip(*(pred[k].tolist() for k in ("scores", "bboxes", "labels")))
                if c == label
            )
            for score, box in mine:
                best = max(free, key=lambda o: iou(box, o[2]), default=None)
                if best is not None and iou(box, best[2]) >= 0.5:
                    free.remove(best)
                    outcomes.append((score, float(best[3] == speed), 0.0))
                    continue
                own = max((iou(box, o[2]) for o in here if o[3] == speed), default=-1)
                rest = max((iou(box, o[2]) for o in here if o[3] != speed), default=-1)
                if own == rest:
                    false = np.mean([o[3] != speed for o in here]) if here else share
                else:
                    false = float(own > rest)
                outcomes.append((score, 0.0, false))
        outcomes.sort(key=lambda item: item[0])
        true = np.cumsum([t for _, t, _ in outcomes])
        false = np.cumsum([f for _, _, f in outcomes])
        precision = [t / (t + f) if t + f else 0.0 for t, f in zip(true, false)]
        recall = true / total
        at = [max((p for p, r in zip(precision, recall) if r >= x), default=0.0)
              for x in np.linspace(0, 1, 101)]  # fmt: skip
        means.append(np.mean(at))
    return 100 * float(np.mean(means))


def build(path, **kwargs):
    metric = METRICS.build(
        dict(type="mmvitaccel.VIDMetric", ann_file=str(path), by_motion=True, **kwargs)
    )
    metric.dataset_meta = {"classes": CLASSES}
    return metric


def score(metric, samples) -> dict:
    metric.process(None, samples)
    return metric.evaluate(len(samples))


@pytest.mark.parametrize("seed", range(6))
def test_generated_videos_equal_the_definition(tmp_path, seed):
    path = tmp_path / "vid.json"
    drawn(path, seed)
    samples = found(path, seed)
    figures = score(build(path), samples)
    assert set(figures) == {"vid/mAP50", *(f"vid/mAP50_{speed}" for speed in SPEEDS)}
    for speed in SPEEDS:
        expected = slow_reference(path, samples, speed)
        assert figures[f"vid/mAP50_{speed}"] == pytest.approx(expected, abs=1e-6)
        assert 0 < expected < 100


def test_a_detector_of_still_objects_alone(tmp_path):
    path = tmp_path / "vid.json"
    still = {n: [10, 10, 50, 50] for n in range(12)}
    moving = {n: [20 * n, 200, 50, 50] for n in range(12)}
    write(path, [(1, 1, 1, still), (1, 2, 1, moving)], {1: 12})
    boxes = torch.tensor([[10.0, 10, 60, 60]])
    samples = [
        dict(img_id=n, pred_instances=dict(
            bboxes=boxes, scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.long)))
        for n in range(1, 13)
    ]  # fmt: skip
    figures = score(build(path), samples)
    assert figures["vid/mAP50_slow"] == pytest.approx(100)
    assert figures["vid/mAP50_fast"] == 0
    assert np.isnan(figures["vid/mAP50_medium"])
    assert figures["vid/mAP50"] == pytest.approx(100 * 51 / 101)


@pytest.mark.parametrize(
    ("iou_of_all", "group"),
    [(0.9, "medium"), (0.7, "medium"), (0.9001, "slow"), (0.6999, "fast"), (1.0, "slow")],
)
def test_boundaries_are_exact(tmp_path, iou_of_all, group):
    """Boxes that lie within one another: their overlap is the ratio of their heights."""
    frames = {0: [0, 0, 100, 10_000]} | {n: [0, 0, 100, 10_000 * iou_of_all] for n in range(1, 8)}
    path = tmp_path / "vid.json"
    write(path, [(1, 1, 1, frames)], {1: 8})
    assert motion_groups(json.loads(path.read_text()), "vid.json")[0] == group
    assert group_of(sum([iou_of_all] * 7) / 7) == group


@pytest.mark.parametrize(
    ("frames", "groups"),
    [
        ([0], ["fast"]),
        ([0, 10], ["slow", "slow"]),
        ([0, 11], ["fast", "fast"]),
        ([0, 4, 11], ["slow", "slow", "slow"]),
    ],
)
def test_only_frames_within_ten_count(tmp_path, frames, groups):
    path = tmp_path / "vid.json"
    write(path, [(1, 1, 1, {n: [5, 5, 20, 20] for n in frames})], {1: 12})
    found_groups = motion_groups(json.loads(path.read_text()), "vid.json")
    assert [found_groups[n] for n in range(len(frames))] == groups


def test_the_same_instance_id_in_another_video_is_another_object(tmp_path):
    path = tmp_path / "vid.json"
    write(path, [(1, 1, 1, {0: [0, 0, 9, 9]}), (2, 1, 1, {1: [0, 0, 9, 9]})], {1: 2, 2: 2})
    assert set(motion_groups(json.loads(path.read_text()), "vid.json").values()) == {"fast"}


def test_objects_that_cannot_be_followed_are_named(tmp_path):
    path = tmp_path / "vid.json"
    write(path, [(1, 1, 1, {0: [0, 0, 9, 9], 1: [0, 0, 9, 9]})], {1: 2})
    content = json.loads(path.read_text())
    content["annotations"][1]["image_id"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"instance_id 1 is twice in frame 0 of video 1 of .*vid"):
        build(path)
    del content["annotations"][1]["instance_id"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"which 1 of the 2 annotations of .*such as id 2 of"):
        build(path)
    METRICS.build(dict(type="mmvitaccel.VIDMetric", ann_file=str(path)))


@pytest.mark.parametrize("instance", ["7", 7.0, "left dog"])
def test_ids_of_any_kind(tmp_path, instance):
    path = tmp_path / "vid.json"
    write(path, [(1, instance, 1, {0: [0, 0, 9, 9], 1: [0, 0, 9, 9]})], {1: 2})
    groups = motion_groups(json.loads(path.read_text()), "vid.json")
    assert list(groups.values()) == ["slow", "slow"]


@pytest.mark.parametrize("instance", [float("nan"), [7], None])
def test_ids_that_are_none(tmp_path, instance):
    path = tmp_path / "vid.json"
    write(path, [(1, instance, 1, {0: [0, 0, 9, 9]})], {1: 1})
    with pytest.raises(ValueError, match=r"instance_id, a number or a text, which 1 of the 1 ann"):
        motion_groups(json.loads(path.read_text()), "vid.json")


def test_an_object_of_no_frame_of_the_set_is_left_out(tmp_path):
    path = tmp_path / "vid.json"
    drawn(path, 0)
    samples, content = found(path, 0), json.loads(path.read_text())
    whole = score(build(path), samples)
    content["annotations"].append(dict(content["annotations"][0], id=9999, image_id=9999))
    path.write_text(json.dumps(content))
    assert score(build(path), samples) == whole


def test_offline_evaluation_of_a_dump(tmp_path):
    path = tmp_path / "vid.json"
    drawn(path, 0)
    samples = found(path, 0)
    (tmp_path / "found.pkl").write_bytes(pickle.dumps(samples))
    loaded = pickle.loads((tmp_path / "found.pkl").read_bytes())
    evaluator = Evaluator(build(path))
    evaluator.dataset_meta = {"classes": CLASSES}
    assert evaluator.offline_evaluate(loaded, chunk_size=7) == score(build(path), samples)


def test_the_order_of_results_does_not_matter_and_the_log_tells_all(tmp_path):
    path = tmp_path / "vid.json"
    drawn(path, 1)
    samples = found(path, 1)
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    figures = score(build(path), samples)
    logger.removeHandler(handler)
    assert figures == score(build(path), samples[::-1])
    parts = ", ".join(f"{speed} {figures[f'vid/mAP50_{speed}']:.2f} %" for speed in SPEEDS)
    assert any(f"mAP50 {figures['vid/mAP50']:.2f} %, {parts} (39 frames" in line for line in lines)
