"""Models registered under the scope ``mmvitaccel``."""

from mmvitaccel.models.vivit import ViViT

__all__ = ["ViViT"]
