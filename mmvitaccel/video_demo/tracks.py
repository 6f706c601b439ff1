"""Track ids for detections, by mmdet's ByteTracker."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DefaultScope

from mmvitaccel.errors import building

_KEPT = 5  # boxes per track; the tracker itself would keep all


class Tracks:
    """Assigns track ids to the detections of one video.

    Raises:
        UserError: mmdet's tracker or a package that it needs is not installed.
    """

    def __init__(self) -> None:
        with building("--track"), DefaultScope.overwrite_default_scope("mmdet"):
            from mmdet.registry import MODELS

            self._tracker = MODELS.build(
                dict(
                    type="ByteTracker",
                    motion=dict(type="KalmanFilter"),
                    obj_score_thrs=dict(high=0.5, low=0.1),
                    init_track_thr=0.6,
                )
            )

    def follow(self, sample: Any) -> Any:
        """The tracked instances of a frame: ``bboxes``, ``labels``, ``scores``, ``instances_id``.

        Args:
            sample: The detector's data sample, with the frame's number as ``frame_id``.
        """
        tracked = self._tracker.track(sample)
        for track in self._tracker.tracks.values():
            for values in track.values():
                if isinstance(values, list):
                    del values[:-_KEPT]
        return tracked
