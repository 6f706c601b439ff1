"""Runs a detector over many videos with Ray Data; each video is computed by one worker."""

from mmvitaccel.serving.batch.outcome import Outcome
from mmvitaccel.serving.batch.run import run_batch
from mmvitaccel.serving.batch.settings import BatchSettings
from mmvitaccel.serving.batch.sources import BatchVideo, find_videos

__all__ = ["BatchSettings", "BatchVideo", "Outcome", "find_videos", "run_batch"]
