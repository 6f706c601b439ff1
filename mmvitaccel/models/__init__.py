"""Models registered under the scope ``mmvitaccel``."""

from importlib.util import find_spec

from mmvitaccel.models.efficientvit import EfficientViT
from mmvitaccel.models.efficientvit_classifier import EfficientViTPooling
from mmvitaccel.models.efficientvit_fpn import EfficientViTFPN
from mmvitaccel.models.eventful import Eventful
from mmvitaccel.models.eventful_neck import EventfulNeck
from mmvitaccel.models.simple_fpn import LN2d, SimpleFPN
from mmvitaccel.models.timm_backbone import TIMMBackbone
from mmvitaccel.models.tome import ToMe
from mmvitaccel.models.verb_noun_head import VerbNounHead
from mmvitaccel.models.vitdet import ViTDet
from mmvitaccel.models.vivit import ViViT

__all__ = [
    "EfficientViT",
    "EfficientViTFPN",
    "EfficientViTPooling",
    "Eventful",
    "EventfulNeck",
    "LN2d",
    "SimpleFPN",
    "TIMMBackbone",
    "ToMe",
    "VerbNounHead",
    "ViTDet",
    "ViViT",
]

# reason: mmaction2 does without mmdet, and so may those who have no detectors
if find_spec("mmdet") is not None:
    from mmvitaccel.models.cascade_roi_head import CascadeRoIHead

    __all__ += ["CascadeRoIHead"]
