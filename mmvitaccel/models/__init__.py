"""Models registered under the scope ``mmvitaccel``."""

from importlib.util import find_spec

from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.classifier import EfficientViTPooling
from mmvitaccel.models.efficientvit.fpn import EfficientViTFPN
from mmvitaccel.models.timm_backbone import TIMMBackbone
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vitdet.simple_fpn import LN2d, SimpleFPN
from mmvitaccel.models.vivit.backbone import ViViT
from mmvitaccel.models.vivit.verb_noun_head import VerbNounHead
from mmvitaccel.models.wrappers.eventful import Eventful
from mmvitaccel.models.wrappers.eventful_neck import EventfulNeck
from mmvitaccel.models.wrappers.rlt import RLT
from mmvitaccel.models.wrappers.tome import ToMe

__all__ = [
    "RLT",
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

# mmaction2 does not need mmdet, so it may be missing
if find_spec("mmdet") is not None:
    from mmvitaccel.models.box_tta import BoxTTAModel
    from mmvitaccel.models.clip_flip import ClipFlip
    from mmvitaccel.models.vitdet.cascade_roi_head import CascadeRoIHead

    __all__ += ["BoxTTAModel", "CascadeRoIHead", "ClipFlip"]
