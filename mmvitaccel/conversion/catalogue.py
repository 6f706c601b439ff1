"""List of all layouts. No weights match two of them."""

from __future__ import annotations

from mmvitaccel.conversion.efficientvit.released import (
    EFFICIENTVIT_IMAGENET,
    EFFICIENTVIT_MASK_RCNN,
    EFFICIENTVIT_RETINANET,
    EFFICIENTVIT_TIMM,
)
from mmvitaccel.conversion.layout.layout import Layout, Weights
from mmvitaccel.conversion.vitdet.detectron2 import DETECTRON2_VITDET
from mmvitaccel.conversion.vitdet.eventful import EVENTFUL_VITDET
from mmvitaccel.conversion.vitdet.image_vit import MAE_VIT, VIT_AS_VIVIT
from mmvitaccel.conversion.vitdet.mmdet import MMDET_VITDET
from mmvitaccel.conversion.vivit.eventful import EVENTFUL_VIVIT
from mmvitaccel.conversion.vivit.tadaconv import TADACONV_VIVIT

LAYOUTS = (
    EFFICIENTVIT_IMAGENET,
    EFFICIENTVIT_TIMM,
    EFFICIENTVIT_RETINANET,
    EFFICIENTVIT_MASK_RCNN,
    DETECTRON2_VITDET,
    EVENTFUL_VITDET,
    MMDET_VITDET,
    MAE_VIT,
    VIT_AS_VIVIT,
    TADACONV_VIVIT,
    EVENTFUL_VIVIT,
)


def recognise(weights: Weights) -> Layout | None:
    """Return the layout that matches the parameter names, or None.

    Args:
        weights: Tensors by their names in the file.
    """
    return next((layout for layout in LAYOUTS if layout.recognise(weights)), None)
