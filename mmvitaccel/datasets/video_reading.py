"""Frames out of video files, or out of a stretch of a long one, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmvitaccel.registry import TRANSFORMS


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video, to be followed by mmaction2's ``SampleFrames`` and :class:`DecodeFrames`.

    In place of mmaction2's ``DecordInit``: it reads from the path, not through a copy of the whole
    file in memory, it can be told to stay within a stretch of the file, and it says which file is
    broken.

    Required keys: ``filename``; ``start_seconds`` and ``stop_seconds`` for a stretch.

    Added keys: ``video_reader``, ``avg_fps``, ``start_index`` (first frame), ``total_frames``.

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
        import decord

        path = results["filename"]
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"The video '{path}' does not exist; correct data_prefix or the annotation file."
            )
        try:
            reader = decord.VideoReader(str(path), num_threads=self.num_threads)
        except (RuntimeError, decord.DECORDError) as error:
            raise ValueError(
                f"'{path}' cannot be opened as a video: it is none, or incomplete; get it again or "
                "take it out of the annotation file."
            ) from error
        results["video_reader"] = reader
        results["avg_fps"] = float(reader.get_avg_fps())
        first, last = _stretch(results, len(reader))
        results["start_index"], results["total_frames"] = first, last - first
        return results


@TRANSFORMS.register_module()
class DecodeFrames(BaseTransform):
    """Decode the sampled frames, each once.

    Required keys: ``filename``, ``video_reader``, ``frame_inds``.

    Added keys: ``imgs`` (list of (H, W, 3) uint8 RGB), ``original_shape``, ``img_shape``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames and close the video.

        Raises:
            ValueError: A frame that the file announces is not in it.
        """
        import decord

        reader = results.pop("video_reader")
        wanted, place = np.unique(results["frame_inds"], return_inverse=True)
        try:
            frames = reader.get_batch(wanted).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise ValueError(
                f"'{results['filename']}' announces {len(reader)} frames, but not all of the "
                f"frames {wanted[0]} to {wanted[-1]} can be decoded: it is damaged or ends in the "
                "middle; get it again or take it out of the annotation file."
            ) from error
        results["imgs"] = [frames[i] for i in place.reshape(-1)]
        results["original_shape"] = results["img_shape"] = frames.shape[1:3]
        return results


def _stretch(results: dict[str, Any], length: int) -> tuple[int, int]:
    """First frame and the one behind the last, of a video of ``length`` frames."""
    if "start_seconds" not in results:
        return 0, length
    start, stop, fps = results["start_seconds"], results["stop_seconds"], results["avg_fps"]
    first, last = round(start * fps), min(round(stop * fps), length)
    if first >= last:
        raise ValueError(
            f"'{results['filename']}' has no frames from {start:.2f} s to {stop:.2f} s: it is "
            f"{length / fps:.2f} s long; the file is incomplete or the annotations are of another."
        )
    return first, last
