"""Draws the page's own clips, and checks uploaded ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmvitaccel.datasets.synthetic.video import VideoSetSettings, background_of, draw_video
from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import VideoWriter, open_video
from mmvitaccel.video_reader.backends import signature_of
from mmvitaccel.video_reader.source import parse_source

FRAMES = 90  # frames of a drawn clip
_SETTINGS = dict(
    num_val=2,
    img_size=(320, 320),
    objects=(4, 8),
    object_size=(0.08, 0.3),
    speed=0.01,
    noise=2.0,
    seed=7,
)
_FPS = 25
_MOST_PIXELS = 4096 * 2304  # pixels of a frame


def draw_clips(folder: Path, frames: int = FRAMES) -> dict[str, Path]:
    """Draw a clip of a fixed camera and a clip of a panning camera.

    Returns:
        The mp4 files by title.
    """
    settings = VideoSetSettings(num_frames=frames, **_SETTINGS)
    clips = {}
    for number in range(settings.num_val):
        kind = background_of(settings, number)
        path = clips[f"{kind} camera, drawn"] = folder / f"{kind}.mp4"
        with VideoWriter(path, _FPS) as written:
            for picture, _ in draw_video(settings, "val", number):
                written.add(picture)
    return clips


def given_clips(paths: Iterable[Path]) -> dict[str, Path]:
    """Clips by the names of their files.

    Raises:
        UserError: A file is not a video, or two have the same name.
    """
    clips: dict[str, Path] = {}
    for path in paths:
        check_clip(path, str(path))
        if path.name in clips:
            raise UserError(
                f"--clip: {clips[path.name]} and {path} have the same name; rename one."
            )
        clips[path.name] = path
    return clips


def check_clip(path: Path, name: str) -> None:
    """Check that a file is a video whose first frame can be decoded.

    Args:
        path: The file.
        name: The user's name for it, used in messages in place of the path.

    Raises:
        UserError: It is not a video, or its frames are too large.
    """
    try:
        # FFmpeg treats any file that looks like a playlist as one, and opens its URLs
        if signature_of(parse_source(path)).container is None:
            raise UserError(f"{path} is not in a known video container; give an mp4.")
        with open_video(path) as video:
            height, width = next(iter(video)).image.shape[:2]
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from error
    if height * width > _MOST_PIXELS:
        raise UserError(
            f"{name} has frames of {width} x {height} pixels, above the limit of {_MOST_PIXELS} "
            "pixels; resize it."
        )
