"""Metrics registered under the scope ``mmvitaccel``."""

from mmvitaccel.metrics.macs_metric import MacsMetric
from mmvitaccel.metrics.verb_noun_accuracy import VerbNounAccuracy
from mmvitaccel.metrics.vid_metric import VIDMetric

__all__ = ["MacsMetric", "VIDMetric", "VerbNounAccuracy"]
