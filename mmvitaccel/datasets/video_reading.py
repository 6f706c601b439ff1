"""Frames of videos, or of a segment of a long video, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform

from mmvitaccel.arguments import whole_number
from mmvitaccel.errors import UserError
from mmvitaccel.registry import TRANSFORMS
from mmvitaccel.video_reader.indexed import IndexedVideo, open_indexed


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video; use it before mmaction2's ``SampleFrames`` and :class:`DecodeFrames`.

    It replaces mmaction2's ``DecordInit``. It reads from the path instead of copying the whole file
    to memory, can be limited to a segment of the file, accepts folders and patterns of numbered
    images, and names a damaged file.

    Required keys: ``filename``; ``start_seconds`` and ``stop_seconds`` for a segment, which is
    located by the time stamps of the frames.

    Added keys: ``video_reader``, ``start_index`` (first frame), ``total_frames``, and ``avg_fps``
    of the segment if the rate is known.

    Args:
        num_threads: Decoding threads.
    """

    def __init__(self, num_threads: int = 1) -> None:
        self.num_threads = whole_number("OpenVideo", "num_threads", num_threads, least=1)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader and the range of frames.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a video, or the segment is beyond its end.
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
        # SampleFrames takes a sample without a rate to have the one that it wants
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
            ValueError: A frame in the file's index cannot be decoded.
        """
        reader = results.pop("video_reader")
        try:
            results["imgs"] = reader.frames(results["frame_inds"])
        except UserError as error:
            raise ValueError(str(error)) from error
        results["original_shape"] = results["img_shape"] = results["imgs"][0].shape[:2]
        return results


def _stretch(results: dict[str, Any], reader: IndexedVideo) -> tuple[int, int]:
    """First frame of the segment and the one after its last."""
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
