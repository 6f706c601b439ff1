"""Video input and output: files, folders and patterns of images, URLs and cameras.

Images are always (H, W, 3) uint8 RGB and upright: the display matrix is applied.
"""

from mmvitaccel.video_reader.indexed import IndexedVideo, open_indexed
from mmvitaccel.video_reader.timing import Frame
from mmvitaccel.video_reader.video import Video, frame_seconds, open_video
from mmvitaccel.video_reader.writer import VideoWriter

__all__ = ["Frame", "IndexedVideo", "Video", "VideoWriter", "frame_seconds", "open_indexed"]
__all__ += ["open_video"]
