"""What a conversion of ILSVRC reports, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmvitaccel.datasets.ilsvrc.layout import Release, Video, find_videos
from mmvitaccel.datasets.ilsvrc.records import CocoVID

MISSING_LIST = "missing_files.txt"
_NAMED = 10


class MissingFilesError(FileNotFoundError):
    """Files are missing or damaged; the message has the first and the path of the list."""


def tell_unlisted(release: Release, split: str, videos: list[Video], console: Console) -> None:
    """Report videos on disk that are in no list, such as those added in 2017."""
    on_disk, _ = find_videos(release, split, from_folders=True)
    extra = sorted({video.name for video in on_disk} - {video.name for video in videos})
    if extra:
        console.print(
            f"vid_{split}: {len(extra)} videos on disk are in no list and left out, the first is "
            f"{extra[0]}; --from-folders takes them",
            soft_wrap=True,
        )


def tell_missing(problems: list[str], target: Path, skip_missing: bool, console: Console) -> None:
    """Report missing or broken files, one per line; raise an error unless they may be skipped."""
    if not problems:
        return
    listed = target / MISSING_LIST
    listed.write_text("\n".join(problems) + "\n")
    first = "; ".join(problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    what = f"{len(problems)} files are missing or broken (all in {listed}): {first}{more}"
    if not skip_missing:
        raise MissingFilesError(
            f"{what}. Unpack those archives again, or leave the frames out with --skip-missing; "
            "nothing was written."
        )
    console.print(f"left out: {what}", soft_wrap=True)


def refuse_nothing(name: str, coco: CocoVID, release: Release) -> None:
    """Raise an error if there are no pictures."""
    if not coco.content["images"]:
        folder = release.annotations / ("train" if name == "det" else name.removeprefix("vid_"))
        first = next(iter(sorted(folder.rglob("*.xml"))), None)
        raise ValueError(
            f"{name}: no picture is left of {folder} (its first file is {first or 'none'}); names "
            "of a video's frames end in their number, such as 000000.xml, and each has a picture: "
            "correct the names or the folders."
        )


def refuse_unknown(name: str, coco: CocoVID, classes: Sequence[str] | None) -> None:
    """Raise an error if there are objects but none has a known name."""
    # A list of DET may have only pictures of other classes, as negatives
    asked_for = "videos" in coco.content or not coco.content["images"]
    if asked_for and coco.unknown and not any(coco.per_class[c] for c in coco.class_names):
        found = ", ".join(repr(unknown) for unknown, _ in coco.unknown.most_common(_NAMED))
        asked = ", ".join(classes) if classes else "the 30 synsets of ImageNet VID (n02691156, ...)"
        raise ValueError(
            f"{name}: none of its {sum(coco.unknown.values())} objects is one of {asked}; the "
            f"annotations name {found}: give these with --classes, in the model's order."
        )


def tell_unknown(coco: CocoVID, classes: Sequence[str] | None, console: Console) -> None:
    """Report the objects that were left out, and classes without objects."""
    if coco.unknown and coco.content.get("videos") is not None:
        left = ", ".join(f"{name!r} {n}" for name, n in coco.unknown.most_common(_NAMED))
        console.print(f"  left out, of no class: {left}", soft_wrap=True)
    absent = [name for name in classes or () if not coco.per_class[name]]
    if absent:
        console.print(f"  without objects: {', '.join(map(repr, absent))}", soft_wrap=True)


def tell_summary(path: Path, coco: CocoVID, release: Release, console: Console) -> None:
    """Report what was written."""
    content = coco.content
    videos = f"{len(content['videos'])} videos, " if "videos" in content else ""
    marked = sum(image["is_vid_train_frame"] for image in content["images"])
    console.print(
        f"{path}: {videos}{len(content['images'])} images ({marked} to train on, "
        f"{coco.without_objects} without objects), {len(content['annotations'])} objects; "
        f"pictures are in {release.pictures}",
        soft_wrap=True,
    )
    console.print("  " + ", ".join(f"{name} {n}" for name, n in sorted(coco.per_class.items())))
    for what, (count, first) in coco.odd.items():
        console.print(
            f"  warning: {count} {what}, the first in {first}; correct the annotations if this is "
            "not meant",
            soft_wrap=True,
        )
