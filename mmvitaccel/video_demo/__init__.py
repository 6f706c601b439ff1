"""Runs an eventful detector on a video under a budget, and draws detections, tokens and costs."""

from mmvitaccel.video_demo.demo import VideoDemo
from mmvitaccel.video_demo.frame import DemoFrame

__all__ = ["DemoFrame", "VideoDemo"]
