"""Convert the ILSVRC releases; nothing is written if a file is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmvitaccel.datasets.ilsvrc.layout import Release, find_release
from mmvitaccel.datasets.ilsvrc.report import (
    MissingFilesError,
    refuse_nothing,
    refuse_unknown,
    tell_missing,
    tell_summary,
    tell_unknown,
)
from mmvitaccel.datasets.ilsvrc.sets import Bar, read_det, read_vid
from mmvitaccel.whole_files import whole_file

#: File names in the configs of mmtracking and of this package.
OUTPUT_FILES = {
    "vid_train": "imagenet_vid_train.json",
    "vid_val": "imagenet_vid_val.json",
    "det": "imagenet_det_30plus1cls.json",
}


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
                contents[name] = read_det(release, classes, from_folders, problems, bar, console)
            else:
                split = name.removeprefix("vid_")
                contents[name] = read_vid(
                    release, split, classes, from_folders, problems, bar, console
                )
    tell_missing(problems, target, skip_missing, console)
    for name, coco in contents.items():
        refuse_nothing(name, coco, releases[name])
        refuse_unknown(name, coco, classes)
    written = {}
    for name, coco in contents.items():
        written[name] = target / OUTPUT_FILES[name]
        with whole_file(written[name]) as file:
            file.writelines(part.encode() for part in json.JSONEncoder().iterencode(coco.content))
        tell_summary(written[name], coco, releases[name], console)
        tell_unknown(coco, classes, console)
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
