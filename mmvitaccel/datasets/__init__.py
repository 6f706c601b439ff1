"""Datasets, samplers and transforms registered under the scope ``mmvitaccel``."""

from importlib.util import find_spec

from mmvitaccel.datasets.clip_sampler import ClipSampler
from mmvitaccel.datasets.epic_kitchens import EpicKitchens
from mmvitaccel.datasets.spatial_features import LoadSpatialFeatures, SpatialFeatures
from mmvitaccel.datasets.video_reading import DecodeFrames, OpenVideo
from mmvitaccel.datasets.video_sampler import VideoSampler

__all__ = [
    "ClipSampler",
    "DecodeFrames",
    "EpicKitchens",
    "LoadSpatialFeatures",
    "OpenVideo",
    "SpatialFeatures",
    "VideoSampler",
]

# mmaction2 does not need mmdet, so it may be missing
if find_spec("mmdet") is not None:
    from mmvitaccel.datasets.imagenet_vid import ImageNetVID

    __all__ += ["ImageNetVID"]
