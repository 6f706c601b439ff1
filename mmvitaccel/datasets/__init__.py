"""Datasets, samplers and transforms registered under the scope ``mmvitaccel``."""

from mmvitaccel.datasets.imagenet_vid import ImageNetVID
from mmvitaccel.datasets.video_sampler import VideoSampler

__all__ = ["ImageNetVID", "VideoSampler"]
