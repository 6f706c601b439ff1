"""The csv as released, and video files in whole, damaged and cut short."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from mmvitaccel.datasets.epic_kitchens import EpicKitchens
from mmvitaccel.errors import UserError, running
from mmvitaccel.loaders.checked import check_loader
from mmvitaccel.registry import DATASETS, TRANSFORMS

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
ROWS = [
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.20,00:00:01.40,3,21,open door,open,3,door,3,"
    "['door'],[3]",
    'P01_01_1,P01,P01_01,00:00:02.629,00:01:00.60,01:00:01.20,10,18,"turn on, light",turn-on,6,'
    "light,114,\"['light', 'lamp']\",\"[114, 5]\"",
]


def write_csv(folder: Path, header: str = HEADER, rows=ROWS) -> str:
    path = folder / "EPIC_100_train.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def build(folder: Path, ann_file: str, pipeline=(), **options) -> EpicKitchens:
    options = {"data_prefix": dict(video=str(folder))} | options
    config = dict(type="mmvitaccel.EpicKitchens", ann_file=ann_file, pipeline=list(pipeline))
    return DATASETS.build(config | options)


def write_video(path: Path, frames: int = 30, size=(64, 48), fps: float = 15) -> None:
    """Frames that grow brighter by 6 levels each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 40 + 6 * i, np.uint8))
    writer.release()


def frame_numbers(brightness) -> np.ndarray:
    """Which frames these are; the codec takes about 3 levels away."""
    return np.round((np.asarray(brightness) - 37) / 6).astype(int)


def pipeline(*transforms):
    pytest.importorskip("mmaction")
    init_default_scope("mmaction")
    return [TRANSFORMS.build(t) for t in transforms]


def run(results: dict, transforms) -> dict:
    for transform in transforms:
        results = transform(results)
    return results


READ = (
    dict(type="mmvitaccel.OpenVideo"),
    dict(
        type="SampleFrames", clip_len=6, num_clips=2, test_mode=True, out_of_bound_opt="repeat_last"
    ),
    dict(type="mmvitaccel.DecodeFrames"),
)


def test_rows_of_the_released_csv(tmp_path):
    dataset = build(tmp_path, write_csv(tmp_path))
    first, second = dataset.get_data_info(0), dataset.get_data_info(1)
    assert first["label"] == [3, 3]
    assert second["label"] == [6, 114]
    assert first["filename"] == str(tmp_path / "P01/videos/P01_01.MP4")
    assert (first["start_seconds"], first["stop_seconds"]) == (0.2, 1.4)
    assert (second["start_seconds"], second["stop_seconds"]) == (60.6, 3601.2)
    assert second["video_id"] == "P01_01_1"


def test_frames_of_a_segment_in_one_file(tmp_path):
    pytest.importorskip("mmaction")
    write_video(tmp_path / "P01/videos/P01_01.MP4")
    pack = dict(type="FormatShape", input_format="NCTHW"), dict(type="PackActionInputs")
    init_default_scope("mmaction")
    item = build(tmp_path, write_csv(tmp_path, rows=ROWS[:1]), [*READ, *pack])[0]
    assert item["data_samples"].gt_label.tolist() == [3, 3]
    assert item["inputs"].shape == (2, 3, 6, 48, 64)
    # Seconds 0.2 to 1.4 at 15 frames a second are frames 3 to 20: clips start at 3 and at 15.
    expected = np.array([[3, 4, 5, 6, 7, 8], [15, 16, 17, 18, 19, 20]])
    means = item["inputs"].float().mean((1, 3, 4)).numpy()
    assert np.array_equal(frame_numbers(means), expected)


def test_released_frames(tmp_path):
    pytest.importorskip("mmaction")
    folder = tmp_path / "P01/rgb_frames/P01_01"
    folder.mkdir(parents=True)
    for i in range(1, 25):
        cv2.imwrite(str(folder / f"frame_{i:010d}.jpg"), np.full((16, 16, 3), 8 * i, np.uint8))
    init_default_scope("mmaction")
    sample = dict(type="SampleFrames", clip_len=4, frame_interval=2, test_mode=True)
    dataset = build(
        tmp_path,
        write_csv(tmp_path, rows=ROWS[:1]),
        [sample, dict(type="RawFrameDecode")],
        data_prefix=dict(img=str(tmp_path)),
    )
    imgs = dataset[0]["imgs"]
    # Frames 3 to 21 are 19; the clip of 7 is in their middle.
    assert [round(img.mean() / 8) for img in imgs] == [9, 11, 13, 15]


def test_clip_shorter_than_the_window_repeats_its_last_frame(tmp_path):
    write_video(tmp_path / "short.mp4", frames=4)
    results = run(dict(filename=str(tmp_path / "short.mp4")), pipeline(*READ))
    means = [img.mean() for img in results["imgs"]]
    assert frame_numbers(means).tolist() == [0, 1, 2, 3, 3, 3] * 2


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER.replace("verb_class,", ""), ROWS, "lacks the columns verb_class; give EPIC_100"),
        (
            "narration_id,video_id,start_timestamp",
            [],
            "lacks the columns participant_id, stop_timestamp, start_frame",
        ),
        ("", [], "lacks the columns narration_id"),
        (HEADER, [], "has no rows"),
        (HEADER, [ROWS[0], ROWS[1][:40]], "line 3: .*cut short or edited"),
        (HEADER, [ROWS[0].replace(",3,door", ",97,door")], "line 2: verb_class=97, noun_class=3"),
        (HEADER, [ROWS[0].replace("00:00:00.20", "0.2")], "line 2: .*cut short or edited"),
    ],
)
def test_annotations_that_are_not_as_released(tmp_path, header, rows, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, write_csv(tmp_path, header, rows))


def test_either_videos_or_frames(tmp_path):
    for prefix in ({}, dict(video="a", img="b")):
        with pytest.raises(ValueError, match="give either 'video' or 'img'"):
            build(tmp_path, write_csv(tmp_path), data_prefix=prefix)


def blank_half_of_the_pictures(path: Path) -> None:
    """Zero the second half of an mp4's picture data; the index that follows it stays."""
    data, position = bytearray(path.read_bytes()), 0
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"mdat":
            middle, end = position + 8 + size // 2, position + size
            data[middle:end] = bytes(end - middle)
        position += size
    path.write_bytes(data)


def test_files_that_are_no_videos_or_not_whole(tmp_path):
    open_video = pipeline(READ[0])
    with pytest.raises(FileNotFoundError, match=r"'gone\.mp4' does not exist; correct data_prefix"):
        run(dict(filename="gone.mp4"), open_video)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(
        ValueError, match=r"text\.mp4 cannot be opened as a video: it is a text file"
    ):
        run(dict(filename=str(text)), open_video)
    write_video(tmp_path / "cut.mp4")
    cut = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4 cannot be opened .* incomplete"):
        run(dict(filename=str(tmp_path / "cut.mp4")), open_video)
    late = dict(filename=str(tmp_path / "ok.mp4"), start_seconds=60.0, stop_seconds=61.0)
    write_video(tmp_path / "ok.mp4")
    with pytest.raises(
        ValueError, match=r"no frames from 60\.00 s to 61\.00 s: it is 2\.00 s long"
    ):
        run(late, open_video)


def test_video_that_ends_in_the_middle(tmp_path, real_video):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(real_video.read_bytes())
    blank_half_of_the_pictures(path)
    with pytest.raises(
        ValueError, match=r"damaged\.mp4' should have 300 frames, but some .* incomplete"
    ):
        run(dict(filename=str(path)), pipeline(*READ))


class Broken(torch.utils.data.Dataset):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return run(dict(filename=str(self.path)), pipeline(READ[0]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_sentence_reaches_the_user_from_a_worker(tmp_path, num_workers):
    pytest.importorskip("mmaction")
    (tmp_path / "text.mp4").write_text("no video")
    for name, message in (
        ("text.mp4", r"/text\.mp4: it cannot be opened as a video: it is a text file; [^\n]*$"),
        ("gone.mp4", r"/gone\.mp4: the file does not exist; [^\n]*$"),
    ):
        data = Broken(tmp_path / name)
        loader = check_loader(torch.utils.data.DataLoader(data, num_workers=num_workers))
        with pytest.raises(UserError, match=message), running(torch.nn.Identity(), "training"):
            next(iter(loader))
