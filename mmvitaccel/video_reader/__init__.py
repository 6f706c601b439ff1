"""The one reader of videos: files, folders of pictures, patterns, addresses and cameras.

Pictures are always (H, W, 3) uint8 RGB, upright: a display matrix is applied.
"""

from mmvitaccel.video_reader.indexed import IndexedVideo, open_indexed
from mmvitaccel.video_reader.timing import Frame
from mmvitaccel.video_reader.video import Video, frame_seconds, open_video
from mmvitaccel.video_reader.writer import VideoWriter

__all__ = ["Frame", "IndexedVideo", "Video", "VideoWriter", "frame_seconds", "open_indexed"]
__all__ += ["open_video"]
