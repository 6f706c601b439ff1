"""Broken files end in one sentence with their path, from workers too, or are skipped."""

from __future__ import annotations

import io
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmvitaccel.errors import UserError
from mmvitaccel.loaders.checked import check_loader, without_workers
from mmvitaccel.loaders.damage import describe_damage, is_unended


class Pictures(Dataset):
    """mmcv's loader over a list of files."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        from mmcv.transforms import LoadImageFromFile

        results = LoadImageFromFile()(dict(img_path=self.paths[index]))
        return dict(index=index, mean=float(results["img"].mean()))


class Clips(Pictures):
    """mmaction2's decoder of frames, two of each folder."""

    def __getitem__(self, index: int) -> dict:
        from mmaction.datasets.transforms import RawFrameDecode, Resize

        results = dict(
            frame_dir=self.paths[index], filename_tmpl="{:05}.jpg", modality="RGB", offset=1,
            frame_inds=np.array([0, 1]), num_clips=1, clip_len=2,
        )  # fmt: skip
        results = Resize((16, 16), keep_ratio=False)(RawFrameDecode()(results))
        return dict(index=index, count=len(results["imgs"]))


class Faulty(Pictures):
    """A fault of the program."""

    def __getitem__(self, index: int) -> dict:
        return {}[index]


def encoded(suffix: str, level: int = 90) -> bytes:
    rng = np.random.default_rng(level)
    picture = rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    return cv2.imencode(suffix, picture)[1].tobytes()


BROKEN = {
    "empty.jpg": (b"", r"the file is empty \(0 bytes\)"),
    "cut.jpg": (encoded(".jpg")[:-900], r"the picture is truncated or damaged, after \d+ bytes"),
    "cut.png": (encoded(".png")[:-900], r"the picture is truncated or damaged, after \d+ bytes"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", r"it is a web page, it begins with b'<!DOC"),
    "text.png": (b"not a picture", r"it is not a picture, it begins with b'not a pictur'"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\n", r"it is a Git LFS pointer"),
}


def as_gif() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 48)).save(content, "GIF")
    return content.getvalue()


BROKEN["moving.gif"] = (as_gif(), r"this OpenCV does not decode GIF pictures; convert it to PNG")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Four good files."""
    for index in range(4):
        suffix = (".jpg", ".png")[index % 2]
        (tmp_path / f"{index}{suffix}").write_bytes(encoded(suffix, index))
    return sorted(str(path) for path in tmp_path.iterdir())


def loader(dataset, workers=0, batch_size=2, **options):
    made = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=pseudo_collate
    )
    return check_loader(made, **options)


def indices(batches) -> list[int]:
    return [index for batch in batches for index in batch["index"]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named(pictures, tmp_path, name, workers):
    content, reason = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    paths = [*pictures, str(tmp_path / name)]
    with pytest.raises(UserError, match=rf"^\S*/{name}: {reason}.*replace or remove it") as caught:
        list(loader(Pictures(paths), workers))
    assert "\n" not in str(caught.value)
    skipping = loader(Pictures([paths[-1], *pictures]), workers, skip=True)
    assert indices(skipping) == [1, 2, 3, 4]
    assert len(skipping.skipped) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_missing_files_and_folders(pictures, tmp_path, workers):
    with pytest.raises(UserError, match=r"/none\.jpg: the file does not exist; replace"):
        list(loader(Pictures([str(tmp_path / "none.jpg")]), workers))
    with pytest.raises(UserError, match=r": it is a folder and not a file; replace"):
        list(loader(Pictures([str(tmp_path)]), workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["empty.jpg", "cut.jpg", "page.jpg"])
def test_a_broken_frame_of_a_clip_is_named(tmp_path, name, workers):
    for clip in "ab":
        (tmp_path / clip).mkdir()
        for frame in (1, 2):
            (tmp_path / clip / f"{frame:05}.jpg").write_bytes(encoded(".jpg"))
    (tmp_path / "b" / "00002.jpg").write_bytes(BROKEN[name][0])
    clips = Clips([str(tmp_path / clip) for clip in "ab"])
    with pytest.raises(UserError, match=rf"/b/00002\.jpg: {BROKEN[name][1]}"):
        list(loader(clips, workers))
    assert indices(loader(clips, workers, skip=True)) == [0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("decoder", ["Decord", "OpenCV", "PyAV"])
def test_a_broken_video_is_named(tmp_path, decoder, workers):
    pytest.importorskip("mmaction")
    pytest.importorskip({"Decord": "decord", "PyAV": "av"}.get(decoder, "cv2"))
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0" * 2000)

    class Videos(Pictures):
        def __getitem__(self, index: int) -> dict:
            from mmaction.datasets import transforms

            results = dict(filename=self.paths[index], modality="RGB", start_index=0)
            results = getattr(transforms, f"{decoder}Init")()(results)
            results = transforms.SampleFrames(2, 1, 1, test_mode=True)(results)
            results = getattr(transforms, f"{decoder}Decode")()(results)
            return dict(index=index, count=len(results["imgs"]))

    with pytest.raises(UserError, match=r"/broken\.mp4: it cannot be opened as a video: "):
        list(loader(Videos([str(path)]), workers))
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"/broken\.mp4: the file is empty"):
        list(loader(Videos([str(path)]), workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_of_the_program_keeps_its_traceback(pictures, workers):
    with pytest.raises(KeyError):
        list(loader(Faulty(pictures), workers, skip=True))


class Own:
    """A step of a user's, with a fault."""

    def transform(self, results: dict) -> dict:
        return results["nothing"]

    __call__ = transform


NORMALIZE = dict(type="mmcv.Normalize", mean=[0.0] * 3, std=[1.0] * 3)
STEPS = {
    "unset": (
        [dict(type="mmcv.LoadImageFromFile"), dict(type="mmcv.Resize", scale=(0, 0))],
        r"^the pipeline's step Resize fails \(\S+/\d\.(jpg|png)\): .*inv_scale.*; correct its arg",
    ),
    "order": (
        [NORMALIZE],
        r"^the pipeline's step Normalize needs 'img', which no step before it adds to the s",
    ),
    "decoder": (
        [dict(type="mmcv.LoadImageFromFile", imdecode_backend="turbo")],
        r"^the pipeline's step LoadImageFromFile fails \(.*\): backend: turbo is not supported",
    ),
    "backend": (
        [dict(type="mmcv.LoadImageFromFile", backend_args=dict(backend="ftp"))],
        r"^the pipeline's step LoadImageFromFile fails \(.*\): there is no file backend named 'f",
    ),
    "module": (
        [dict(type="mmcv.LoadImageFromFile", backend_args=dict(backend="petrel"))],
        r"^the pipeline's step LoadImageFromFile fails \(.*\): Please install petrel_client",
    ),
    "inside": (
        [dict(type="mmcv.RandomApply", prob=1.0, transforms=NORMALIZE)],
        r"^the pipeline's step Normalize needs 'img'",
    ),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails_is_no_broken_file(pictures, name, workers):
    """So that nothing is skipped for it either, and the path is no reason to remove a file."""
    steps, sentence = STEPS[name]
    for skip in (False, True):
        with pytest.raises(UserError, match=sentence) as caught:
            list(loader(stock(pictures, steps), workers, skip=skip))
        assert "remove" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_of_a_record_is_no_missing_file():
    """mmaction2's poses have a ``frame_dir`` without files."""

    class Poses(Pictures):
        def __getitem__(self, index: int) -> dict:
            from mmaction.datasets.transforms import PackActionInputs

            return PackActionInputs()(dict(frame_dir="v2", label="1", keypoint=np.zeros(1)))

    with pytest.raises(UserError, match=r"^the pipeline's step PackActionInputs fails: .*[^.]; co"):
        list(loader(Poses(["v2"])))


@pytest.mark.parametrize("test_mode", [True, False])
def test_a_pipeline_that_leaves_nothing(pictures, tmp_path, test_mode):
    steps = [dict(type="mmcv.LoadImageFromFile", ignore_empty=True)]
    dataset = stock([str(tmp_path / "none.jpg")], steps)
    dataset.test_mode = test_mode
    with pytest.raises(UserError, match=r"^the pipeline of BaseDataset leaves no sample.*ignore_e"):
        list(loader(dataset))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_step_of_a_users_own_keeps_its_traceback(pictures, workers):
    dataset = stock(pictures)
    dataset.pipeline.transforms.append(Own())
    with pytest.raises(KeyError):
        list(loader(dataset, workers, skip=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_another_sample_takes_the_place(pictures, tmp_path, workers):
    (tmp_path / "empty.jpg").write_bytes(b"")
    dataset = Pictures([str(tmp_path / "empty.jpg"), *pictures])
    batches = list(loader(dataset, workers, batch_size=5, skip=True, training=True))
    assert len(indices(batches)) == 5
    assert 0 not in indices(batches)


def test_a_data_set_that_is_broken_throughout(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    dataset = Pictures([str(tmp_path / "empty.jpg")] * 3)
    with pytest.raises(UserError, match=r"100 broken samples in a row; the last: \S+/empty\.jpg"):
        list(loader(dataset, batch_size=1, skip=True, training=True))
    assert list(loader(dataset, skip=True)) == []


def test_a_worker_that_is_started_afresh(pictures, tmp_path):
    """``spawn`` pickles the data set, and the worker imports what it needs."""
    (tmp_path / "empty.jpg").write_bytes(b"")
    made = DataLoader(
        stock([*pictures, str(tmp_path / "empty.jpg")]), num_workers=1, collate_fn=pseudo_collate,
        multiprocessing_context=multiprocessing.get_context("spawn"),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"/empty\.jpg: the file is empty \(0 bytes\)"):
        list(check_loader(made))


def stock(paths: list[str], steps=(dict(type="mmcv.LoadImageFromFile"),)) -> Dataset:
    """mmengine's data set, which a worker can import."""
    from mmengine.dataset import BaseDataset

    dataset = BaseDataset(pipeline=list(steps), lazy_init=True)
    dataset.data_list = [dict(img_path=path) for path in paths]
    dataset.serialize_data, dataset._fully_initialized, dataset.test_mode = False, True, True
    return dataset


def test_whole_pictures_are_left_alone(pictures):
    assert [describe_damage(path) for path in pictures] == [None] * 4
    # what a camera writes behind the end is no damage
    assert not is_unended(encoded(".jpg") + b"\0\0")
    assert describe_damage("https://host/x.jpg") is None
    assert indices(loader(Pictures(pictures))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        dict(persistent_workers=True),
        dict(prefetch_factor=4),
        dict(persistent_workers=True, prefetch_factor=2, multiprocessing_context="fork", timeout=9),
    ],
)
def test_no_workers(options, capfd):
    cfg = ConfigDict(batch_size=2, num_workers=0, **options)
    assert without_workers(cfg) == dict(batch_size=2, num_workers=0)
    said = "".join(capfd.readouterr())
    assert "num_workers=0 loads in the main process" in said
    assert all(name in said for name in options)
    assert cfg.get(next(iter(options)))
    DataLoader(Pictures([]), **without_workers(cfg))


def test_options_of_workers_stay_with_them(capfd):
    for cfg in (dict(num_workers=2, persistent_workers=True), dict(num_workers=0)):
        assert without_workers(Config(dict(a=cfg)).a) == cfg
    assert "".join(capfd.readouterr()) == ""
