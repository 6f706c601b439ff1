"""Folders of the ILSVRC releases, and the videos, frames and images that they should contain.

The 2015 release unpacks to ``ILSVRC2015/``, the 2017 one to ``ILSVRC/`` with further training
videos in ``ILSVRC2017_VID_train_0000``; below that both have ``Annotations/{VID,DET}``,
``Data/{VID,DET}`` and ``ImageSets``. The lists that the video detection literature shares
(``VID_train_15frames.txt``, ``VID_val_videos.txt``, ``DET_train_30classes.txt``) are not part of
the release; they belong in ``Lists`` or ``ImageSets``. They contain only the videos of 2015.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRAIN_FRAMES_PER_VIDEO = 15
_RELEASES = (".", "ILSVRC", "ILSVRC2015", "ILSVRC2017")
_LIST_FOLDERS = ("Lists", "ImageSets", "ImageSets/VID", "ImageSets/DET")
_SHARED_LISTS = {"train": "VID_train_15frames.txt", "val": "VID_val_videos.txt"}
DET_LIST = "DET_train_30classes.txt"


@dataclass(frozen=True)
class Release:
    """One set's folders.

    Attributes:
        root: Holds ``Annotations``, ``Data`` and the lists.
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
        num_frames: Its frames are ``000000`` to ``num_frames - 1``.
        train_frames: Frames to train on, as mmtracking numbers them.
    """

    name: str
    num_frames: int
    train_frames: list[int]


def find_release(folder: Path, kind: str) -> Release | None:
    """Look for a set in ``folder`` and in the folders that the archives unpack to.

    Args:
        folder: What the user gave.
        kind: ``VID`` or ``DET``.

    Returns:
        Where it is, or None.
    """
    found = (Release(folder / name, kind) for name in _RELEASES)
    return next((release for release in found if release.annotations.is_dir()), None)


def find_videos(release: Release, split: str, from_folders: bool) -> tuple[list[Video], str]:
    """The videos of a split: by the shared list, else by ImageNet's own, else by the folders.

    Args:
        release: Where the set is.
        split: ``train`` or ``val``.
        from_folders: Use what is on disk and ignore the lists.

    Returns:
        The videos, and a description of the source.

    Raises:
        ValueError: A list has a malformed line.
    """
    shared = release.find_list(_SHARED_LISTS[split])
    if shared and not from_folders:
        return _from_shared_list(shared, split), str(shared)
    own = release.find_list(f"{split}.txt")
    if own and not from_folders:
        return _from_frame_list(own, split), str(own)
    return _from_folders(release, split), f"the folders in {release.annotations / split}"


def spread_train_frames(num_frames: int) -> list[int]:
    """The frames that ``VID_train_15frames.txt`` marks in a video, in mmtracking's numbers.

    The list has the middles of 15 equal parts of the video; mmtracking takes its numbers for
    counted from 1, so all are one lower and a leading 0 becomes -1, which is no frame.
    """
    parts = TRAIN_FRAMES_PER_VIDEO
    middles = {(2 * part + 1) * num_frames // (2 * parts) for part in range(parts)}
    return [frame - 1 for frame in sorted(middles)]


def _lines(path: Path, fields: int) -> Iterator[list[str]]:
    """The fields of each line that is not empty."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            parts = line.split()
            if len(parts) != fields or not all(part.isdigit() for part in parts[1:]):
                raise ValueError(
                    f"line {number} of {path} is {line!r}; {fields} fields are expected there, a "
                    "path and numbers. Put the original list there or use --from-folders."
                )
            yield parts


def _from_shared_list(path: Path, split: str) -> list[Video]:
    """``<video> 1 <frame> <num_frames>`` to train, ``<video> <first> 0 <num_frames>`` to test."""
    videos: dict[str, Video] = {}
    for name, _, frame, num_frames in _lines(path, 4):
        video = videos.setdefault(name, Video(name, int(num_frames), []))
        if split == "train":
            video.train_frames.append(int(frame) - 1)
    return list(videos.values())


def _from_frame_list(path: Path, split: str) -> list[Video]:
    """``<video>/<frame> <number>``: ImageNet's own lists name every frame."""
    last: dict[str, int] = {}
    for frame, _ in _lines(path, 2):
        name, _, number = frame.rpartition("/")
        if not name or not number.isdigit():
            raise ValueError(
                f"{path} has {frame!r} where <video>/<frame number> is expected. Put the original "
                "list there or use --from-folders."
            )
        last[name] = max(last.get(name, 0), int(number))
    return [_video(f"{split}/{name}", last[name] + 1, split) for name in sorted(last)]


def _from_folders(release: Release, split: str) -> list[Video]:
    """Every folder with frames, as long as its last frame says."""
    frames: dict[str, int] = {}
    for root in (release.annotations, release.pictures):
        for folder, _, files in os.walk(root / split):
            numbers = [int(Path(file).stem) for file in files if Path(file).stem.isdigit()]
            if numbers:
                name = Path(folder).relative_to(root).as_posix()
                frames[name] = max(frames.get(name, 0), max(numbers) + 1)
    return [_video(name, frames[name], split) for name in sorted(frames)]


def _video(name: str, num_frames: int, split: str) -> Video:
    return Video(name, num_frames, spread_train_frames(num_frames) if split == "train" else [])
