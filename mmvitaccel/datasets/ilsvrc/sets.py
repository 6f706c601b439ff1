"""The sets of ILSVRC, read from their annotations into CocoVID's form."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rich.console import Console

from mmvitaccel.datasets.ilsvrc.layout import (
    DET_LIST,
    PICTURES,
    Release,
    find_videos,
    read_list,
)
from mmvitaccel.datasets.ilsvrc.records import Annotation, CocoVID, read_annotation
from mmvitaccel.datasets.ilsvrc.report import tell_unlisted

# From the number of steps to a function that is called at each step.
Bar = Callable[[int], Callable[[], None]]


def read_vid(
    release: Release,
    split: str,
    classes: Sequence[str] | None,
    from_folders: bool,
    problems: list[str],
    bar: Bar,
    console: Console,
) -> CocoVID:
    """Convert a split of VID."""
    videos, origin = find_videos(release, split, from_folders)
    console.print(f"vid_{split}: {len(videos)} videos by {origin}", soft_wrap=True)
    if not from_folders:
        tell_unlisted(release, split, videos, console)
    advance = bar(sum(len(video.frames) for video in videos))
    coco = CocoVID("VID", classes)
    for video in videos:
        video_id = coco.add_video(video.name, video.train_frames)
        marked = set(video.train_frames)
        present = _listing(release, video.name)
        for frame_id, stem in enumerate(video.frames):
            name = f"{video.name}/{stem}"
            picture = _picture(name, present)
            annotation = _annotation(release, name, picture, present, problems)
            if annotation:
                coco.add_frame(
                    picture,
                    annotation,
                    frame_id=frame_id,
                    video_id=video_id,
                    is_vid_train_frame=frame_id in marked,
                )
            advance()
    return coco


def read_det(
    release: Release,
    classes: Sequence[str] | None,
    from_folders: bool,
    problems: list[str],
    bar: Bar,
    console: Console,
) -> CocoVID:
    """Convert the images of DET's training set in the list, or all with one of the classes."""
    listed = None if from_folders else release.find_list(DET_LIST)
    if listed:
        names = [line.split()[0] for line in read_list(listed) if line.strip()]
    else:
        paths = sorted((release.annotations / "train").rglob("*.xml"))
        names = [p.relative_to(release.annotations).with_suffix("").as_posix() for p in paths]
    origin = listed or f"the folders in {release.annotations / 'train'}"
    console.print(f"det: {len(names)} images by {origin}", soft_wrap=True)
    advance = bar(len(names))
    coco = CocoVID("DET", classes)
    present: dict[str, set[str]] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in present:
            present[folder] = _listing(release, folder)
        picture = _picture(name, present[folder])
        annotation = _annotation(release, name, picture, present[folder], problems)
        if annotation and not (listed or coco.has_class(annotation)):
            coco.unknown.update(thing.synset for thing in annotation.things)
        elif annotation:
            coco.add_image(picture, annotation, is_vid_train_frame=True)
        advance()
    return coco


def _listing(release: Release, folder: str) -> set[str]:
    """Names of a folder's files, in the annotations and in the pictures."""
    # One listing per folder; a million single checks take minutes on network disks
    names: set[str] = set()
    for root in (release.annotations, release.pictures):
        if (root / folder).is_dir():
            names.update(os.listdir(root / folder))
    return names


def _picture(name: str, present: set[str]) -> str:
    """A frame's picture with its actual suffix; ``.JPEG`` if it does not exist."""
    stem = name.rpartition("/")[2]
    spellings = (spelt for suffix in PICTURES for spelt in (suffix.upper(), suffix))
    suffix = next((spelt for spelt in spellings if stem + spelt in present), ".JPEG")
    return name + suffix


def _annotation(
    release: Release, name: str, picture: str, present: set[str], problems: list[str]
) -> Annotation | None:
    """A frame's annotation, or None if it or the picture is missing or broken."""
    absent = [
        root / file
        for root, file in ((release.annotations, f"{name}.xml"), (release.pictures, picture))
        if file.rpartition("/")[2] not in present
    ]
    problems += map(str, absent)
    if absent:
        return None
    path = release.annotations / f"{name}.xml"
    try:
        return read_annotation(path)
    except ValueError as error:
        problems.append(f"{path} ({error})")
        return None
