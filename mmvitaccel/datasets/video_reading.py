"""Frames out of videos, or out of a stretch of a long one, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform

from mmvitaccel.errors import UserError
from mmvitaccel.registry import TRANSFORMS
from mmvitaccel.video_reader.indexed import IndexedVideo, open_indexed


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video, to be followed by mmaction2's ``SampleFrames`` and :class:`DecodeFrames`.

    In place of mmaction2's ``DecordInit``: it reads from the path, not through a copy of the whole
    file in memory, it can be told to stay within a stretch of the file, it takes folders and
    patterns of numbered pictures too, and it says which file is broken.

    Required keys: ``filename``; ``start_seconds`` and ``stop_seconds`` for a stretch, which is
    found by the time stamps of the frames.

    Added keys: ``video_reader``, ``start_index`` (first frame), ``total_frames``, and ``avg_fps``
    of the stretch where a rate is known.

    Args:
        num_threads: Threads that decode.
    """

    def __init__(self, num_threads: int = 1) -> None:
        self.num_threads = num_threads

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader and the stretch of frames.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no video, or the stretch lies behind its end.
        """
        path = str(results["filename"])
        try:
            reader = open_indexed(path, self.num_threads)
            first, last = _stretch(results, reader)
        except UserError as error:
            if "does not exist" in str(error) and not Path(path).exists():
                raise FileNotFoundError(
                    f"The video '{path}' does not exist; correct data_prefix or the annotation "
                    "file."
                ) from error
            raise ValueError(f"{error} (Or take it out of the annotation file.)") from error
        results["video_reader"] = reader
        results["start_index"], results["total_frames"] = first, last - first
        fps = reader.rate(first, last)
        # reason: SampleFrames takes a sample without a rate to have the one that it wants
        results.pop("avg_fps", None)
        if fps is not None:
            results["avg_fps"] = fps
        return results


@TRANSFORMS.register_module()
class DecodeFrames(BaseTransform):
    """Decode the sampled frames, each once.

    Required keys: ``filename``, ``video_reader``, ``frame_inds``.

    Added keys: ``imgs`` (list of (H, W, 3) uint8 RGB, upright), ``original_shape``, ``img_shape``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames and close the video.

        Raises:
            ValueError: A frame that the file announces is not in it.
        """
        reader = results.pop("video_reader")
        try:
            results["imgs"] = reader.frames(results["frame_inds"])
        except UserError as error:
            raise ValueError(str(error)) from error
        results["original_shape"] = results["img_shape"] = results["imgs"][0].shape[:2]
        return results


def _stretch(results: dict[str, Any], reader: IndexedVideo) -> tuple[int, int]:
    """First frame and the one behind the last."""
    if "start_seconds" not in results:
        return 0, len(reader)
    start, stop = results["start_seconds"], results["stop_seconds"]
    first, last = reader.between(start, stop)
    if first >= last:
        raise ValueError(
            f"'{results['filename']}' has no frames from {start:.2f} s to {stop:.2f} s: it is "
            f"{reader.end:.2f} s long; the file is incomplete or the annotations are of another."
        )
    return first, last
