"""Folders of the ILSVRC releases, and the videos, frames and images that they should contain.

The 2015 release unpacks to ``ILSVRC2015/``, the 2017 one to ``ILSVRC/`` with further training
videos in ``ILSVRC2017_VID_train_0000``; below that both have ``Annotations/{VID,DET}``,
``Data/{VID,DET}`` and ``ImageSets``. The lists that the video detection literature shares
(``VID_train_15frames.txt``, ``VID_val_videos.txt``, ``DET_train_30classes.txt``) are not part of
the release; they belong in ``Lists`` or ``ImageSets``. They contain only the videos of 2015.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmvitaccel.text_files import read_lines
from mmvitaccel.video_reader.pictures import first_fraction

TRAIN_FRAMES_PER_VIDEO = 15
_RELEASES = (".", "ILSVRC", "ILSVRC2015", "ILSVRC2017")
_LIST_FOLDERS = ("Lists", "ImageSets", "ImageSets/VID", "ImageSets/DET")
_SHARED_LISTS = {"train": "VID_train_15frames.txt", "val": "VID_val_videos.txt"}
DET_LIST = "DET_train_30classes.txt"
PICTURES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of pictures in small letters; the releases have ``.JPEG``, which is taken first."""


@dataclass(frozen=True)
class Release:
    """One set's folders.

    Attributes:
        root: Folder with ``Annotations``, ``Data`` and the lists.
        kind: ``VID`` or ``DET``.
    """

    root: Path
    kind: str

    @property
    def annotations(self) -> Path:
        """Folder of the xml files."""
        return self.root / "Annotations" / self.kind

    @property
    def pictures(self) -> Path:
        """Folder of the JPEG files; a json's ``file_name`` starts here."""
        return self.root / "Data" / self.kind

    def find_list(self, name: str) -> Path | None:
        """Find a list by file name; None if it is missing."""
        candidates = (self.root / folder / name for folder in _LIST_FOLDERS)
        return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class Video:
    """A video of the release.

    Attributes:
        name: Folder below ``Data/VID``, such as ``val/ILSVRC2015_val_00000000``.
        frames: Its frames' names without suffix, in order; the released ones are ``000000``,
            ``000001`` and so on.
        train_frames: Places of the frames to train on, as mmtracking numbers them.
    """

    name: str
    frames: list[str]
    train_frames: list[int]


def find_release(folder: Path, kind: str) -> Release | None:
    """Search a set in ``folder`` and in the folders to which the archives unpack.

    Args:
        folder: The given folder.
        kind: ``VID`` or ``DET``.

    Returns:
        The release, or None.
    """
    found = (Release(folder / name, kind) for name in _RELEASES)
    return next((release for release in found if release.annotations.is_dir()), None)


def find_videos(release: Release, split: str, from_folders: bool) -> tuple[list[Video], str]:
    """The videos of a split: from the shared list, else from ImageNet's own, else from folders.

    Args:
        release: Where the set is.
        split: ``train`` or ``val``.
        from_folders: Use the folders on disk and ignore the lists.

    Returns:
        The videos, and a description of the source.

    Raises:
        ValueError: A list has a malformed line.
    """
    shared = release.find_list(_SHARED_LISTS[split])
    if shared and not from_folders:
        return _from_shared_list(shared, split, release), str(shared)
    own = release.find_list(f"{split}.txt")
    if own and not from_folders:
        return _from_frame_list(own, split), str(own)
    return _from_folders(release, split), f"the folders in {release.annotations / split}"


def spread_train_frames(num_frames: int) -> list[int]:
    """The frames that ``VID_train_15frames.txt`` marks in a video, in mmtracking's numbers.

    The list has the middles of 15 equal parts of the video. mmtracking assumes that its numbers
    start at 1, so all are one lower and a leading 0 becomes -1, which is not a frame.
    """
    parts = TRAIN_FRAMES_PER_VIDEO
    middles = {(2 * part + 1) * num_frames // (2 * parts) for part in range(parts)}
    return [frame - 1 for frame in sorted(middles)]


def read_list(path: Path) -> list[str]:
    """The lines of a list of a release.

    Raises:
        ValueError: The file is not UTF-8 text.
    """
    try:
        return read_lines(path)
    except ValueError as error:
        raise ValueError(f"{error} Put the original list there or use --from-folders.") from error


def _lines(path: Path, fields: int) -> Iterator[list[str]]:
    """The fields of each line that is not empty."""
    for number, line in enumerate(read_list(path), 1):
        if line.strip():
            parts = line.split()
            if len(parts) != fields or not all(part.isdigit() for part in parts[1:]):
                raise ValueError(
                    f"line {number} of {path} is {line!r}; {fields} fields are expected there, a "
                    "path and numbers. Put the original list there or use --from-folders."
                )
            yield parts


def _from_shared_list(path: Path, split: str, release: Release) -> list[Video]:
    """``<video> 1 <frame> <num_frames>`` to train, ``<video> <first> 0 <num_frames>`` to test."""
    videos: dict[str, Video] = {}
    for name, _, frame, num_frames in _lines(path, 4):
        if name not in videos:
            videos[name] = Video(name, _listed_frames(release, name, int(num_frames)), [])
        video = videos[name]
        if split == "train":
            video.train_frames.append(int(frame) - 1)
    return list(videos.values())


def _from_frame_list(path: Path, split: str) -> list[Video]:
    """``<video>/<frame> <number>``: ImageNet's own lists name every frame."""
    frames: dict[str, list[str]] = {}
    for frame, _ in _lines(path, 2):
        name, _, stem = frame.rpartition("/")
        if not name or _number(stem) is None:
            raise ValueError(
                f"{path} has {frame!r} where <video>/<frame number> is expected. Put the original "
                "list there or use --from-folders."
            )
        frames.setdefault(name, []).append(stem)
    return [_video(f"{split}/{name}", _in_order(frames[name]), split) for name in sorted(frames)]


def _from_folders(release: Release, split: str) -> list[Video]:
    """Every folder with frames, from its first frame to its last."""
    frames: dict[str, list[str]] = {}
    for root, suffixes in ((release.annotations, (".xml",)), (release.pictures, PICTURES)):
        for folder, _, files in os.walk(root / split):
            stems = _stems(files, suffixes)
            if stems:
                frames.setdefault(Path(folder).relative_to(root).as_posix(), []).extend(stems)
    return [_video(name, _in_order(frames[name]), split) for name in sorted(frames)]


def _video(name: str, frames: list[str], split: str) -> Video:
    return Video(name, frames, spread_train_frames(len(frames)) if split == "train" else [])


def _listed_frames(release: Release, name: str, count: int) -> list[str]:
    """The frames of a video with a given number of frames: from 0, unless the disk has others."""
    stems = []
    for root, suffixes in ((release.annotations, (".xml",)), (release.pictures, PICTURES)):
        if (root / name).is_dir():
            stems += _stems(os.listdir(root / name), suffixes)
    found = _in_order(stems)
    return found if len(found) == count else [f"{frame:06d}" for frame in range(count)]


def _stems(files: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    """Names without suffix of the files of a kind that end in a number."""
    paths = [Path(file) for file in files]
    kinds = tuple(suffixes)
    fraction = first_fraction(path.stem for path in paths if path.suffix.lower() in kinds)
    if fraction is not None and _number(fraction) is not None:
        raise ValueError(
            f"the frame {fraction} has a decimal point in its number, and frames have whole ones; "
            "rename the frames."
        )
    return [
        path.stem
        for path in paths
        if path.suffix.lower() in kinds and _number(path.stem) is not None
    ]


def _number(stem: str) -> int | None:
    """The number that a frame's name ends in."""
    found = re.search(r"[0-9]+$", stem)
    return int(found[0]) if found else None


def _in_order(stems: Iterable[str]) -> list[str]:
    """Frames in order; with consecutive numbers, missing ones in between are included."""
    by_number = {_number(stem) or 0: stem for stem in stems}
    numbers = sorted(by_number)
    steps = Counter(b - a for a, b in zip(numbers, numbers[1:]))
    # A subsampled video has larger steps; a gap in consecutive numbers is a missing frame
    if not steps or steps.most_common(1)[0][0] != 1:
        return [by_number[number] for number in numbers]
    return [
        by_number.get(number) or _like(by_number[numbers[0]], number)
        for number in range(numbers[0], numbers[-1] + 1)
    ]


def _like(stem: str, number: int) -> str:
    """A frame's name with another number of the same number of digits."""
    digits = re.search(r"[0-9]+$", stem)
    width = len(digits[0]) if digits else 0
    return f"{stem[: len(stem) - width]}{number:0{width}d}"
