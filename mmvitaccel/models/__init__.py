"""Models registered under the scope ``mmvitaccel``."""

from mmvitaccel.models.efficientvit import EfficientViT
from mmvitaccel.models.efficientvit_fpn import EfficientViTFPN
from mmvitaccel.models.vivit import ViViT

__all__ = ["EfficientViT", "EfficientViTFPN", "ViViT"]
