"""EPIC-Kitchens-100 for action recognition, read from the released annotations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.fileio import get

from mmvitaccel.arguments import config, path, refuse, text
from mmvitaccel.datasets.inherited import checked_options
from mmvitaccel.registry import DATASETS
from mmvitaccel.text_files import decode_text

COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "verb_class",
    "noun_class",
)
NUM_VERBS, NUM_NOUNS = 97, 300


@DATASETS.register_module()
class EpicKitchens(BaseDataset):
    """Action segments of EPIC-Kitchens-100 with their verb and noun.

    Reads ``EPIC_100_train.csv`` or ``EPIC_100_validation.csv``. The label is the pair (verb class,
    noun class); :class:`~mmvitaccel.models.vivit.verb_noun_head.VerbNounHead` learns it.

    With ``data_prefix=dict(video=...)``, a sample has ``filename``, ``start_seconds`` and
    ``stop_seconds`` for ``mmvitaccel.OpenVideo``. With ``data_prefix=dict(img=...)``, it has
    ``frame_dir``, ``start_index`` and ``total_frames`` of the released RGB frames for mmaction2's
    ``RawFrameDecode``.

    Args:
        ann_file: The csv.
        pipeline: Transforms.
        data_prefix: Folder of the videos (``video``) or of the frames (``img``).
        video_tmpl: Path of a video in its folder; columns of the csv in braces.
        frames_tmpl: Path of the frames of a video in their folder, likewise.
        filename_tmpl: File name of a frame; frames are numbered from 1.
        **kwargs: Of mmengine's ``BaseDataset``.

    Raises:
        ValueError: The csv lacks a column, has no rows, or has an invalid value.
    """

    LABEL_COUNTS = dict(num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    """How many there are of each part of a label, by the head's name for it."""

    def __init__(
        self,
        ann_file: str,
        pipeline: Sequence[Any],
        data_prefix: dict[str, str],
        video_tmpl: str = "{participant_id}/videos/{video_id}.MP4",
        frames_tmpl: str = "{participant_id}/rgb_frames/{video_id}",
        filename_tmpl: str = "frame_{:010d}.jpg",
        **kwargs: Any,
    ) -> None:
        owner = "EpicKitchens"
        path(owner, "ann_file", ann_file)
        config(owner, "data_prefix", data_prefix, what="a dict of a folder, video or img")
        if isinstance(pipeline, str) or not isinstance(pipeline, Sequence):
            refuse(owner, "pipeline", pipeline, "a list of transforms", wrong_type=True)
        if set(data_prefix) not in ({"video"}, {"img"}):
            raise ValueError(
                f"{owner}: data_prefix has {sorted(map(str, data_prefix))}; give either 'video' or "
                "'img', the folder of the videos or of the frames."
            )
        self.video_tmpl = text(owner, "video_tmpl", video_tmpl)
        self.frames_tmpl = text(owner, "frames_tmpl", frames_tmpl)
        self.filename_tmpl = text(owner, "filename_tmpl", filename_tmpl)
        checked_options(owner, kwargs)
        super().__init__(ann_file, pipeline=list(pipeline), data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the csv."""
        rows = csv.DictReader(io.StringIO(decode_text(get(self.ann_file), self.ann_file)))
        header = rows.fieldnames or ()
        missing = [name for name in COLUMNS if name not in header]
        other = next((mark for mark in ";\t" if len(header) == 1 and mark in header[0]), None)
        if other is not None:
            raise ValueError(
                f"'{self.ann_file}' has its columns divided by {other!r}; save it with commas, as "
                "EPIC_100_train.csv is released."
            )
        if missing:
            raise ValueError(
                f"'{self.ann_file}' lacks the columns {', '.join(missing)}; give EPIC_100_train.csv"
                " or EPIC_100_validation.csv as released (the test set has no labels)."
            )
        filled = (row for row in rows if any(map(_is_filled, row.values())))
        samples = [self._sample(row, rows.line_num) for row in filled]
        if not samples:
            raise ValueError(f"'{self.ann_file}' has no rows; download it again.")
        return samples

    def _sample(self, row: dict[str, str | None], line: int) -> dict[str, Any]:
        """Convert one row to the format of mmaction2's transforms."""
        try:
            verb, noun = int(row["verb_class"]), int(row["noun_class"])
            first, last = int(row["start_frame"]), int(row["stop_frame"])
            start, stop = _seconds(row["start_timestamp"]), _seconds(row["stop_timestamp"])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"'{self.ann_file}', line {line}: {error}; the file was cut short or edited, "
                "download it again."
            ) from error
        if not (0 <= verb < NUM_VERBS and 0 <= noun < NUM_NOUNS):
            raise ValueError(
                f"'{self.ann_file}', line {line}: verb_class={verb}, noun_class={noun}; they must "
                f"be below {NUM_VERBS} and {NUM_NOUNS}."
            )
        sample = {"label": [verb, noun], "video_id": row["narration_id"], "modality": "RGB"}
        if "video" in self.data_prefix:
            path = PurePath(self.data_prefix["video"], self.video_tmpl.format(**row))
            sample.update(filename=str(path), start_seconds=start, stop_seconds=stop)
        else:
            folder = PurePath(self.data_prefix["img"], self.frames_tmpl.format(**row))
            sample.update(
                frame_dir=str(folder),
                filename_tmpl=self.filename_tmpl,
                start_index=first,
                total_frames=last - first + 1,
            )
        return sample


def _is_filled(value: str | list[str] | None) -> bool:
    """Whether a field says something; tables that were edited end in rows of empty ones."""
    return bool(value.strip() if isinstance(value, str) else value)


def _seconds(timestamp: str | None) -> float:
    """Read ``HH:MM:SS.ss``."""
    hours, minutes, seconds = str(timestamp).split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
