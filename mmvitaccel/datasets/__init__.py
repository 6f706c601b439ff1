"""Datasets, samplers and transforms registered under the scope ``mmvitaccel``."""

from mmvitaccel.datasets.epic_kitchens import EpicKitchens
from mmvitaccel.datasets.imagenet_vid import ImageNetVID
from mmvitaccel.datasets.spatial_features import LoadSpatialFeatures, SpatialFeatures
from mmvitaccel.datasets.video_reading import DecodeFrames, OpenVideo
from mmvitaccel.datasets.video_sampler import VideoSampler

__all__ = [
    "DecodeFrames",
    "EpicKitchens",
    "ImageNetVID",
    "LoadSpatialFeatures",
    "OpenVideo",
    "SpatialFeatures",
    "VideoSampler",
]
