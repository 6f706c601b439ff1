"""A detector on a video under a budget: what it finds, what it recomputes and what it costs."""

from mmvitaccel.video_demo.demo import VideoDemo
from mmvitaccel.video_demo.frame import DemoFrame

__all__ = ["DemoFrame", "VideoDemo"]
