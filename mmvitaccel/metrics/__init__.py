"""Metrics registered under the scope ``mmvitaccel``."""

from mmvitaccel.metrics.vid_metric import VIDMetric

__all__ = ["VIDMetric"]
