"""Generated images and videos with exact annotations, to try things without a download.

The layers, innermost first: :mod:`.texture` (noise), :mod:`.sprites` (textured objects),
:mod:`.backdrop` (backgrounds), :mod:`.scene` (light, shadows, occlusion, camera),
:mod:`.motion` (positions per frame), :mod:`.coco` and :mod:`.video` (image and video sets on disk)
and :mod:`.store` (atomic writing). Everything is determined by a seed.
"""

from mmvitaccel.datasets.synthetic.coco import ImageSetSettings, make_image_set
from mmvitaccel.datasets.synthetic.sprites import CLASSES
from mmvitaccel.datasets.synthetic.video import VideoSetSettings, make_video_set

__all__ = ["CLASSES", "ImageSetSettings", "VideoSetSettings", "make_image_set", "make_video_set"]
