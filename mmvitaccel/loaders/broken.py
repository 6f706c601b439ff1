"""Explains which file of a sample could not be read, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np

from mmvitaccel.errors import UserError, frames_of_error, is_refusal, one_line
from mmvitaccel.loaders.damage import (
    PICTURES,
    VIDEOS,
    describe_damage,
    is_unended,
    of_no_codec,
    picture_damage,
)

_DECODERS = (
    "mmaction.datasets.transforms.loading", "decord", "av", "mmcv.image.io", "mmcv.video.io",
)  # fmt: skip
# What no content of a file raises, but a call with arguments that have no meaning.
_OF_CALLS = (AttributeError, ImportError, NameError, NotImplementedError, TypeError)


class BrokenPicture(ValueError):
    """The bytes are not a complete picture."""


def explain_sample(error: Exception) -> str | None:
    """Explain which file could not be read, and why; None for a bug of the program."""
    frames = frames_of_error(error)
    for path in paths_of(frames):
        reason = describe_damage(path)
        if reason is not None:
            return f"{path}: {reason}; replace or remove it"
    if isinstance(error, BrokenPicture):
        path = next(paths_of(frames), "a picture")
        return f"{path}: {error}; replace or remove it"
    if isinstance(error, UserError) or is_refusal(error):
        return one_line(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; correct the path or the permissions"
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    unknown_backend = "backend" in str(error) and "not supported" in str(error)
    if module.startswith(_DECODERS) and not isinstance(error, _OF_CALLS) and not unknown_backend:
        for path in paths_of(frames):
            return f"{path}: it cannot be decoded ({one_line(error)}); replace or remove it"
    return None


def paths_of(frames: Sequence[FrameType]) -> Iterator[str]:
    """Paths of pictures and videos in the frames of an error, innermost first."""
    seen: set[str] = set()
    for frame in reversed(frames):
        for path in _paths_in(frame.f_locals):
            # Templates of frame names are not files
            if path not in seen and "{" not in path:
                seen.add(path)
                yield path


def _paths_in(names: dict[str, Any]) -> Iterator[str]:
    results = names.get("results")
    held = dict(names, **results) if isinstance(results, dict) else names
    for value in list(held.values()):
        if isinstance(value, str) and value.lower().endswith((*PICTURES, *VIDEOS)):
            yield value
    for name in ("img_path", "filename", "filepath"):
        if isinstance(held.get(name), str):
            yield held[name]
    # Without a template it is a name, such as of a record of poses
    if isinstance(results, dict) and {"frame_dir", "filename_tmpl"} <= results.keys():
        template = str(results["filename_tmpl"])
        for number in np.ravel(results.get("frame_inds", ())):
            name = template.format(int(number) + int(results.get("offset", 0)))
            yield f"{results['frame_dir']}/{name}"


def refuse_unended_pictures() -> None:
    """Make ``mmcv.imfrombytes`` refuse truncated pictures; a second call has no effect.

    OpenCV does not report them and fills the rest with grey.
    """
    import mmcv

    decode = mmcv.imfrombytes
    if getattr(decode, "refuses_unended", False):
        return

    def imfrombytes(content: bytes, *args: Any, **kwargs: Any) -> np.ndarray:
        """Call mmcv's function for complete pictures."""
        damage = picture_damage(content) if is_unended(bytes(content)) else None
        if damage is not None:
            raise BrokenPicture(damage)
        picture = decode(content, *args, **kwargs)
        if picture is None:
            raise BrokenPicture(picture_damage(content) or of_no_codec(content))
        return picture

    imfrombytes.refuses_unended = True
    mmcv.imfrombytes = imfrombytes
