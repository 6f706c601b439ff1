"""Generated images: the same from the same seed, and annotated as they are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmvitaccel.datasets.synthetic import CLASSES, ImageSetSettings, make_image_set
from mmvitaccel.datasets.synthetic.annotation import MIN_FRACTION, annotate, polygons
from mmvitaccel.datasets.synthetic.backdrop import make_backdrop
from mmvitaccel.datasets.synthetic.coco import draw_image
from mmvitaccel.datasets.synthetic.scene import Camera, Pose, Visible, quantise, render
from mmvitaccel.datasets.synthetic.sprites import make_sprite
from mmvitaccel.datasets.synthetic.store import write_set
from mmvitaccel.datasets.synthetic.texture import fractal_noise

SMALL = ImageSetSettings(num_train=5, num_val=4, img_size=(96, 128), seed=3)
PLAIN = Camera(np.array([0, 0, 1], np.float32), np.ones(3, np.float32), vignette=0.0, blur=1e-3)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return make_image_set(tmp_path_factory.mktemp("synthetic") / "set", SMALL)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_gives_the_same_bytes(image_set, tmp_path):
    again = files(make_image_set(tmp_path / "again", SMALL))
    assert again == files(image_set)
    assert len(again) == 5 + 4 + 2 + 1


def test_another_seed_gives_other_images():
    other = ImageSetSettings(img_size=SMALL.img_size, seed=SMALL.seed + 1)
    assert not np.array_equal(draw_image(SMALL, "train", 0)[0], draw_image(other, "train", 0)[0])


def test_an_image_does_not_depend_on_how_many_there_are(image_set):
    more = ImageSetSettings(num_train=50, num_val=9, img_size=SMALL.img_size, seed=SMALL.seed)
    written = cv2.imread(str(image_set / "train" / "000004.png"))[:, :, ::-1]
    np.testing.assert_array_equal(draw_image(more, "train", 4)[0], written)


def test_held_out_images_are_not_among_those_to_train_on(image_set):
    train, val = ([p.read_bytes() for p in (image_set / s).iterdir()] for s in ("train", "val"))
    assert len(set(train)) == 5 and len(set(val)) == 4
    assert not set(train) & set(val)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_reads_annotations_that_match_what_was_drawn(image_set, split):
    coco = COCO(str(image_set / "annotations" / f"instances_{split}.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.anns) == len(set(coco.anns)) > 0
    for index, image in enumerate(coco.dataset["images"]):
        picture, visible = draw_image(SMALL, split, index)
        read = cv2.imread(str(image_set / split / image["file_name"]))[:, :, ::-1]
        np.testing.assert_array_equal(read, picture)
        assert (image["height"], image["width"]) == read.shape[:2] == SMALL.img_size
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        seen = [v for v in visible if v.fraction >= MIN_FRACTION and v.mask.sum() >= 16]
        assert len(annotations) == len(seen)
        for annotation, item in zip(annotations, seen):
            check_annotation(coco, annotation, item)


def check_annotation(coco: COCO, annotation: dict, item: Visible) -> None:
    assert annotation["category_id"] == item.label + 1
    assert annotation["area"] == np.count_nonzero(item.mask)
    assert annotation["iscrowd"] == 0
    x, y, width, height = annotation["bbox"]
    assert x >= 0 and y >= 0 and width > 0 and height > 0
    boxed = np.zeros_like(item.mask)
    boxed[y : y + height, x : x + width] = True
    assert not (item.mask & ~boxed).any()
    inside = item.mask[y : y + height, x : x + width]
    assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
    traced = coco.annToMask(annotation).astype(bool)
    assert (traced & item.mask).sum() / (traced | item.mask).sum() > 0.85


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_mask_is_where_the_object_is_seen(label):
    """On black nothing but the object can be bright: a shadow leaves black as it is."""
    rng = np.random.default_rng(label)
    pose = Pose(x=41.3, y=52.6, size=47.0, angle=33.0)
    frame, (item,) = render(
        np.zeros((96, 96, 3), np.float32), [make_sprite(rng, label)], [pose], PLAIN
    )
    bright = frame.max(axis=2) > 20
    differing = bright ^ item.mask
    rim = cv2.morphologyEx(item.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
    # Coverage of a half is the border, so only pixels on it may be judged differently
    assert not (differing & (rim == 0)).any()
    assert item.mask.sum() > 150
    rows, cols = np.nonzero(item.mask)
    assert max(np.ptp(rows), np.ptp(cols)) <= pose.size + 1
    assert abs(np.hypot(np.ptp(rows), np.ptp(cols)) - pose.size) < 0.5 * pose.size


def test_front_object_hides_the_one_behind():
    rng = np.random.default_rng(0)
    back, front = make_sprite(rng, 0), make_sprite(rng, 2)
    poses = [Pose(40.0, 40.0, 40.0, 0.0), Pose(50.0, 44.0, 30.0, 20.0)]
    black = np.zeros((96, 96, 3), np.float32)
    _, (behind, before) = render(black, [back, front], poses, PLAIN)
    _, (alone,) = render(black, [back], poses[:1], PLAIN)
    np.testing.assert_array_equal(behind.mask, alone.mask & ~before.mask)
    assert alone.fraction == 1.0 and before.fraction == 1.0
    assert behind.fraction == pytest.approx(behind.mask.sum() / alone.mask.sum())
    assert 0.3 < behind.fraction < 0.9


def test_object_cut_by_the_border_counts_what_is_outside():
    sprite = make_sprite(np.random.default_rng(1), 0)
    black = np.zeros((80, 80, 3), np.float32)
    _, (cut,) = render(black, [sprite], [Pose(-0.5, 40.0, 40.0, 0.0)], PLAIN)
    assert cut.fraction == pytest.approx(0.5, abs=0.03)
    assert annotate(cut)["bbox"][0] == 0
    _, (gone,) = render(black, [sprite], [Pose(-90.0, 40.0, 40.0, 0.0)], PLAIN)
    assert gone.fraction == 0.0 and annotate(gone) is None


def test_shadow_darkens_on_the_side_away_from_the_light():
    light = np.array([0.6, 0.0, 0.8], np.float32)
    camera = Camera(light, np.ones(3, np.float32), vignette=0.0, blur=1e-3)
    grey = np.full((96, 96, 3), 0.5, np.float32)
    sprite = make_sprite(np.random.default_rng(2), 0)
    frame, (item,) = render(grey, [sprite], [Pose(48.0, 48.0, 40.0, 0.0)], camera)
    cols = np.flatnonzero(item.mask.any(axis=0))
    assert frame[48, cols.min() - 2].max() < 100
    np.testing.assert_allclose(frame[48, cols.max() + 6], 127.5, atol=1.0)
    np.testing.assert_allclose(frame[2], 127.5)


def test_polygons_of_a_box_and_of_nothing():
    mask = np.zeros((20, 30), bool)
    assert polygons(mask) == []
    mask[3:9, 5:17] = True
    (outline,) = polygons(mask)
    points = np.reshape(outline, (-1, 2))
    np.testing.assert_allclose(points.min(axis=0), [5, 3], atol=0.25)
    np.testing.assert_allclose(points.max(axis=0), [17, 9], atol=0.25)


def test_noise_has_the_asked_strength_at_mid_grey():
    grey = np.full((200, 200, 3), 127.5, np.float32)
    read = quantise(grey, np.random.default_rng(0), noise=4.0).astype(np.float64)
    assert read.std() == pytest.approx(4.0, rel=0.02)
    clean = quantise(grey + 0.2, np.random.default_rng(0), noise=0.0)
    np.testing.assert_array_equal(clean, np.full_like(clean, 128))


def test_textures_have_detail_at_several_scales():
    noise = fractal_noise(np.random.default_rng(0), (128, 96), cell=32, octaves=5)
    assert noise.shape == (128, 96) and noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0, abs=1e-4) and noise.std() == pytest.approx(1, abs=1e-4)
    for sigma in (1, 4, 12):
        band = noise - cv2.GaussianBlur(noise, (0, 0), sigma)
        assert band.std() > 0.05
    backdrop = make_backdrop(np.random.default_rng(0), (60, 90), 60)
    assert backdrop.shape == (60, 90, 3) and backdrop.min() >= 0 and backdrop.max() <= 1


def test_second_call_reuses_what_is_there(image_set):
    before = {p: p.stat().st_mtime_ns for p in image_set.rglob("*")}
    calls = []
    assert make_image_set(image_set, SMALL, progress=lambda *step: calls.append(step)) == image_set
    assert {p: p.stat().st_mtime_ns for p in image_set.rglob("*")} == before
    assert calls == []


def test_other_settings_are_refused_or_replace_the_set(tmp_path):
    tiny = ImageSetSettings(num_train=1, num_val=1, img_size=(48, 48))
    more = ImageSetSettings(num_train=2, num_val=1, img_size=(48, 48))
    calls = []
    make_image_set(tmp_path / "set", tiny, progress=lambda *step: calls.append(step))
    assert calls == [("train images", 1, 1), ("val images", 1, 1)]
    with pytest.raises(ValueError, match="other settings"):
        make_image_set(tmp_path / "set", more)
    make_image_set(tmp_path / "set", more, overwrite=True)
    assert len(list((tmp_path / "set" / "train").iterdir())) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="mine' is not empty and was not made by"):
            make_image_set(tmp_path / "mine", SMALL, overwrite=overwrite)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
    with pytest.raises(ValueError, match=r"thesis\.txt' is a file"):
        make_image_set(tmp_path / "mine" / "thesis.txt", SMALL)


def test_interrupted_set_leaves_nothing_behind(tmp_path):
    def fill(folder: Path) -> None:
        (folder / "half.png").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "set", {"a": 1}, fill)
    assert list(tmp_path.iterdir()) == []
    write_set(tmp_path / "set", {"a": 1}, lambda folder: (folder / "old").touch())
    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "set", {"a": 2}, fill, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["old", "settings.json"]
    assert json.loads((tmp_path / "set" / "settings.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_train=0), "num_train=0"),
        (dict(img_size=(31, 200)), r"img_size=\(31, 200\)"),
        (dict(objects=(3, 2)), r"objects=\(3, 2\)"),
        (dict(object_size=(0.0, 0.5)), r"object_size=\(0.0, 0.5\)"),
        (dict(noise=-1.0), "noise=-1.0"),
        (dict(seed=-4), "seed=-4"),
    ],
)
def test_settings_that_cannot_be_drawn(wrong, message):
    with pytest.raises(ValueError, match=message):
        ImageSetSettings(**wrong)
