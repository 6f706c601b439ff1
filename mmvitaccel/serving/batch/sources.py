"""The videos of a batch, and the names of their results."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmvitaccel.errors import UserError
from mmvitaccel.loaders.damage import VIDEOS
from mmvitaccel.text_files import read_lines
from mmvitaccel.video_reader.pictures import numbered_files
from mmvitaccel.video_reader.source import parse_source

_LIST = ".txt"


@dataclass(frozen=True)
class BatchVideo:
    """A video of a batch.

    Attributes:
        name: A relative path, also that of its result.
        path: The absolute path of a file, or of a folder or pattern of numbered pictures.
    """

    name: str
    path: str

    def identity(self) -> dict[str, int]:
        """Size and time of the video's files, which tell whether it has changed since a result.

        Raises:
            UserError: The video does not exist, or is a live source.
        """
        kind = parse_source(self.path).kind
        if kind not in ("file", "pictures"):
            raise UserError(f"{self.path} is a live source without an end; give a file.")
        files = [Path(self.path)] if kind == "file" else numbered_files(self.path)
        found = [file.stat() for file in files]
        return {
            "files": len(found),
            "bytes": sum(stat.st_size for stat in found),
            "modified_ns": max(stat.st_mtime_ns for stat in found),
        }


def find_videos(source: str | os.PathLike) -> list[BatchVideo]:
    """The videos of a folder or a list, by name.

    Args:
        source: A folder, which is searched with those in it for files with the suffix of a video;
            a ``.txt`` with a path in each line, relative to where the list is, of a file or of a
            folder or pattern of numbered pictures; or one video.

    Raises:
        UserError: There are none, or two would have the same result.
    """
    given = Path(source).absolute()
    if given.suffix.lower() == _LIST and given.is_file():
        videos = _listed(given)
    elif given.is_dir():
        files = (path for path in given.rglob("*") if path.suffix.lower() in VIDEOS)
        videos = [_below(given, path) for path in files if path.is_file()]
    elif given.is_file():
        videos = [BatchVideo(given.name, str(given))]
    else:
        raise UserError(
            f"{source} does not exist; give a folder of videos or a .txt that lists them."
        )
    if not videos:
        raise UserError(
            f"{source} holds no videos ({', '.join(VIDEOS)}); give another folder, or a .txt with "
            "a path in each line, which may also be of a folder of numbered pictures."
        )
    found = sorted(set(videos), key=lambda video: video.name)
    for one, other in zip(found, found[1:]):
        if one.name == other.name:
            raise UserError(
                f"{one.path} and {other.path} would both have the result {one.name} (paths outside "
                "the list's folder are named from the root on); give a list for each, with an "
                "--out for each."
            )
    return found


def _listed(file: Path) -> Iterable[BatchVideo]:
    lines = read_lines(file, UserError)
    return [_below(file.parent, file.parent / line.strip()) for line in lines if line.strip()]


def _below(root: Path, path: Path) -> BatchVideo:
    """A video named by its path relative to ``root``, or by its absolute path without the root."""
    path = Path(os.path.normpath(path))
    inside = path.is_relative_to(root)
    name = path.relative_to(root) if inside else path.relative_to(path.anchor)
    return BatchVideo(name.as_posix(), str(path))
