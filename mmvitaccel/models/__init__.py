"""Models registered under the scope ``mmvitaccel``."""

from mmvitaccel.models.cascade_roi_head import CascadeRoIHead
from mmvitaccel.models.efficientvit import EfficientViT
from mmvitaccel.models.efficientvit_classifier import EfficientViTPooling
from mmvitaccel.models.efficientvit_fpn import EfficientViTFPN
from mmvitaccel.models.eventful import Eventful
from mmvitaccel.models.simple_fpn import LN2d, SimpleFPN
from mmvitaccel.models.timm_backbone import TIMMBackbone
from mmvitaccel.models.tome import ToMe
from mmvitaccel.models.verb_noun_head import VerbNounHead
from mmvitaccel.models.vitdet import ViTDet
from mmvitaccel.models.vivit import ViViT

__all__ = [
    "CascadeRoIHead",
    "EfficientViT",
    "EfficientViTFPN",
    "EfficientViTPooling",
    "Eventful",
    "LN2d",
    "SimpleFPN",
    "TIMMBackbone",
    "ToMe",
    "VerbNounHead",
    "ViTDet",
    "ViViT",
]
