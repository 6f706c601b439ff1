"""Convert the ILSVRC releases; nothing is written if a file is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmvitaccel.datasets.ilsvrc.layout import (
    DET_LIST,
    PICTURES,
    Release,
    Video,
    find_release,
    find_videos,
    read_list,
)
from mmvitaccel.datasets.ilsvrc.records import Annotation, CocoVID, read_annotation

#: File names in the configs of mmtracking and of this package.
OUTPUT_FILES = {
    "vid_train": "imagenet_vid_train.json",
    "vid_val": "imagenet_vid_val.json",
    "det": "imagenet_det_30plus1cls.json",
}
MISSING_LIST = "missing_files.txt"
_NAMED = 10
# From the number of steps to a function that is called at each step.
Bar = Callable[[int], Callable[[], None]]


class MissingFilesError(FileNotFoundError):
    """Files are missing or damaged; the message has the first and the path of the list."""


def convert(
    source: Path,
    target: Path | None = None,
    sets: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    from_folders: bool = False,
    skip_missing: bool = False,
    console: Console | None = None,
) -> dict[str, Path]:
    """Write the json files of ImageNet VID and of DET's 30-class subset.

    Args:
        source: The folder with ``Annotations`` and ``Data``, or the one it was unpacked in.
        target: Folder for the json files, created if necessary. Defaults to ``annotations`` beside
            the release's ``Annotations``.
        sets: Keys of :data:`OUTPUT_FILES`. Defaults to those with existing annotations.
        classes: Class names as they appear in the annotations, in the order of their ids.
            Defaults to the 30 of ImageNet VID by their synsets.
        from_folders: Use the videos and images on disk and ignore the lists.
        skip_missing: Skip frames whose annotation or image is missing or damaged. Results on a
            validation set with skipped frames are not comparable.
        console: Output for progress and summaries. Defaults to standard output.

    Returns:
        The files written, by set.

    Raises:
        MissingFilesError: Something is missing and ``skip_missing`` is off; all of it is listed
            in ``missing_files.txt`` in ``target``, and no json is written.
        ValueError: An unknown set, a malformed list, or no object of any class.
    """
    console = console or Console()
    releases = _releases(source, sets, console)
    target = target or next(iter(releases.values())).root / "annotations"
    target.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    contents = {}
    with _progress(console) as progress:
        for name, release in releases.items():
            bar = _bar(progress, name)
            if name == "det":
                contents[name] = _det(release, classes, from_folders, problems, bar, console)
            else:
                split = name.removeprefix("vid_")
                contents[name] = _vid(release, split, classes, from_folders, problems, bar, console)
    _tell_missing(problems, target, skip_missing, console)
    for name, coco in contents.items():
        _refuse_nothing(name, coco, releases[name])
        _refuse_unknown(name, coco, classes)
    written = {}
    for name, coco in contents.items():
        written[name] = target / OUTPUT_FILES[name]
        _write(written[name], coco)
        _tell_summary(written[name], coco, releases[name], console)
        _tell_unknown(coco, classes, console)
    return written


def _releases(source: Path, sets: Sequence[str] | None, console: Console) -> dict[str, Release]:
    """Locations of the requested sets, or of all existing ones."""
    unknown = sorted(set(sets or ()) - set(OUTPUT_FILES))
    if unknown:
        raise ValueError(f"there is no set {unknown}; known are {', '.join(OUTPUT_FILES)}.")
    found, absent = {}, {}
    for name in sets or OUTPUT_FILES:
        kind, split = ("DET", "train") if name == "det" else ("VID", name.removeprefix("vid_"))
        release = find_release(source, kind)
        if release and (release.annotations / split).is_dir():
            found[name] = release
        else:
            root = release.root if release else source
            absent[name] = root / "Annotations" / kind / split
    if absent and (sets or not found):
        raise MissingFilesError(
            f"{', '.join(map(str, absent.values()))}: not there, nor under ILSVRC, ILSVRC2015 or "
            f"ILSVRC2017; unpack the archives in {source} or give their folder."
        )
    for name, folder in absent.items():
        console.print(f"{name}: left out, there is no {folder}", soft_wrap=True)
    return found


def _vid(
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
        _tell_unlisted(release, split, videos, console)
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


def _det(
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
    # reason: one listing per folder; a million single checks take minutes on network disks
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


def _tell_unlisted(release: Release, split: str, videos: list[Video], console: Console) -> None:
    """Report videos on disk that are in no list, such as those added in 2017."""
    on_disk, _ = find_videos(release, split, from_folders=True)
    extra = sorted({video.name for video in on_disk} - {video.name for video in videos})
    if extra:
        console.print(
            f"vid_{split}: {len(extra)} videos on disk are in no list and left out, the first is "
            f"{extra[0]}; --from-folders takes them",
            soft_wrap=True,
        )


def _tell_missing(problems: list[str], target: Path, skip_missing: bool, console: Console) -> None:
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


def _refuse_nothing(name: str, coco: CocoVID, release: Release) -> None:
    """Raise an error if there are no pictures."""
    if not coco.content["images"]:
        folder = release.annotations / ("train" if name == "det" else name.removeprefix("vid_"))
        first = next(iter(sorted(folder.rglob("*.xml"))), None)
        raise ValueError(
            f"{name}: no picture is left of {folder} (its first file is {first or 'none'}); names "
            "of a video's frames end in their number, such as 000000.xml, and each has a picture: "
            "correct the names or the folders."
        )


def _refuse_unknown(name: str, coco: CocoVID, classes: Sequence[str] | None) -> None:
    """Raise an error if there are objects but none has a known name."""
    # reason: a list of DET may have only pictures of other classes, as negatives
    asked_for = "videos" in coco.content or not coco.content["images"]
    if asked_for and coco.unknown and not any(coco.per_class[c] for c in coco.class_names):
        found = ", ".join(repr(unknown) for unknown, _ in coco.unknown.most_common(_NAMED))
        asked = ", ".join(classes) if classes else "the 30 synsets of ImageNet VID (n02691156, ...)"
        raise ValueError(
            f"{name}: none of its {sum(coco.unknown.values())} objects is one of {asked}; the "
            f"annotations name {found}: give these with --classes, in the model's order."
        )


def _tell_unknown(coco: CocoVID, classes: Sequence[str] | None, console: Console) -> None:
    """Report the objects that were left out, and classes without objects."""
    if coco.unknown and coco.content.get("videos") is not None:
        left = ", ".join(f"{name!r} {n}" for name, n in coco.unknown.most_common(_NAMED))
        console.print(f"  left out, of no class: {left}", soft_wrap=True)
    absent = [name for name in classes or () if not coco.per_class[name]]
    if absent:
        console.print(f"  without objects: {', '.join(map(repr, absent))}", soft_wrap=True)


def _tell_summary(path: Path, coco: CocoVID, release: Release, console: Console) -> None:
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


def _write(path: Path, coco: CocoVID) -> None:
    """Write a JSON file atomically."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w") as file:
            json.dump(coco.content, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _bar(progress: Progress, name: str) -> Bar:
    """A progress bar that appears once its length is known."""

    def start(total: int) -> Callable[[], None]:
        task = progress.add_task(name, total=total)
        return lambda: progress.advance(task)

    return start
