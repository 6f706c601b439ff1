"""ImageNet VID as single frames, read from CocoVID JSON files in mmtracking's format."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from mmdet.datasets import CocoDataset

from mmvitaccel.datasets.cocovid import category_ids_by_class, read_cocovid
from mmvitaccel.datasets.inherited import checked_options
from mmvitaccel.datasets.vid_classes import VID_CLASSES
from mmvitaccel.registry import DATASETS


@DATASETS.register_module()
class ImageNetVID(CocoDataset):
    """Frames of videos as single images with their video and frame number.

    One item is one frame, so image pipelines, ``DetDataPreprocessor`` and image detectors work
    unchanged. Items are sorted by ``video_id`` and ``frame_id``. Both, and ``video_length`` (frames
    of the video in the file), are available to ``PackDetInputs``. Each image without a video
    (ImageNet DET) counts as a video of one frame.

    Training uses only frames whose ``is_vid_train_frame`` is not false: 15 per video in VID, and
    the images with one of the 30 classes in DET. Combine both with ``ConcatDataset``.
    ``test_mode`` uses every frame.

    Categories are matched to ``metainfo['classes']`` by name. The file may list them in any order
    and have more; objects of other categories are ignored.

    Args:
        *args: As for :class:`mmdet.datasets.CocoDataset`.
        **kwargs: As for :class:`mmdet.datasets.CocoDataset`; ``data_prefix=dict(img=...)``.

    Raises:
        FileNotFoundError: ``ann_file`` does not exist.
        ValueError: It is not a CocoVID file, has other classes, or has no training frames; or an
            argument has no meaning.
    """

    METAINFO = {"classes": VID_CLASSES}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **checked_options("ImageNetVID", kwargs))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read ``ann_file``: one record per frame, sorted by video and frame."""
        content = read_cocovid(self.ann_file, self.backend_args)
        category_ids = category_ids_by_class(
            content["categories"], self.metainfo["classes"], self.ann_file
        )
        self.cat2label = {cat_id: label for label, cat_id in category_ids.items()}
        self.cat_ids = list(self.cat2label)
        objects = defaultdict(list)
        self.cat_img_map = defaultdict(list)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
            self.cat_img_map[annotation["category_id"]].append(annotation["image_id"])
        video_lengths = Counter(image.get("video_id") for image in content["images"])

        records = []
        for image in content["images"]:
            if not self.test_mode and not image.get("is_vid_train_frame", True):
                continue
            raw = {**image, "img_id": image["id"]}
            record = self.parse_data_info(
                {"raw_img_info": raw, "raw_ann_info": objects[image["id"]]}
            )
            record.update(_place_in_video(image, video_lengths))
            records.append(record)
        if not records:
            raise ValueError(
                f"ImageNetVID: none of the {len(content['images'])} images of {self.ann_file} is "
                "marked is_vid_train_frame, so there is nothing to train on; give the json of the "
                "training split."
            )
        records.sort(key=lambda record: (record["video_id"], record["frame_id"]))
        _refuse_repeated_frames(records, self.ann_file)
        return records


def _place_in_video(image: dict[str, Any], video_lengths: Counter[Any]) -> dict[str, int]:
    """``video_id``, ``frame_id`` and ``video_length`` of an image."""
    video_id = image.get("video_id")
    if video_id is None:
        # Videos are numbered from 0 or 1 upwards; below 0 an image gets a stream of its own
        return {"video_id": -1 - image["id"], "frame_id": 0, "video_length": 1}
    return {
        "video_id": video_id,
        "frame_id": image["frame_id"],
        "video_length": video_lengths[video_id],
    }


def _refuse_repeated_frames(records: list[dict[str, Any]], ann_file: str) -> None:
    """Raise if two of the sorted records are the same frame of the same video."""
    for before, after in zip(records, records[1:]):
        if (before["video_id"], before["frame_id"]) == (after["video_id"], after["frame_id"]):
            raise ValueError(
                f"ImageNet VID: {ann_file} has frame {after['frame_id']} of video "
                f"{after['video_id']} twice (images {before['img_id']} and {after['img_id']}); "
                "convert the set again."
            )
