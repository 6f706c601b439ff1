"""Small detectors of every type that Eventful supports, with random weights, and videos."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SIZE = (96, 128)
_PREPROCESSOR = dict(
    type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=32
)
VITDET = dict(
    type="mmvitaccel.ViTDet", img_size=128, patch_size=16, embed_dim=24, depth=2, num_heads=3,
    window_size=4, window_block_indexes=(0,), pretrain_img_size=32,
)  # fmt: skip
PYRAMID = dict(type="mmvitaccel.SimpleFPN", in_channels=24, out_channels=16, num_outs=5)
_CODER = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)
_RETINA_TEST = dict(
    nms_pre=200, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5),
    max_per_img=20,
)  # fmt: skip
_RCNN_TEST = dict(
    rpn=dict(
        nms_pre=200, max_per_img=60, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
    ),
    rcnn=dict(
        score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20,
        mask_thr_binary=0.5,
    ),
)  # fmt: skip


def build(cfg: dict[str, Any]) -> nn.Module:
    """Build a detector in eval mode, with the same random weights in every call.

    Args:
        cfg: Config of the detector.
    """
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    from mmvitaccel.registry import MODELS

    register_all_modules(init_default_scope=True)
    model = MODELS.build(Config(copy.deepcopy(cfg))._cfg_dict)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        spread = 0.12 if parameter.ndim > 1 else 0.3
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return model.eval()


def retinanet(backbone: dict = VITDET, neck: dict = PYRAMID, **head: Any) -> nn.Module:
    """Build a RetinaNet.

    Args:
        backbone: Config of the backbone.
        neck: Config of the neck.
        **head: Changes of the head's config.
    """
    strides = [4, 8, 16, 32, 64] if backbone is VITDET else [8, 16, 32, 64, 128]
    anchors = dict(
        type="AnchorGenerator", octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
        strides=strides,
    )  # fmt: skip
    kind = dict(
        type="RetinaHead", num_classes=3, in_channels=16, stacked_convs=2, feat_channels=16,
        anchor_generator=anchors, bbox_coder=_CODER,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    return build(
        dict(
            type="RetinaNet",
            data_preprocessor=_PREPROCESSOR,
            backbone=backbone,
            neck=neck,
            bbox_head={**kind, **head},
            test_cfg=_RETINA_TEST,
        )
    )


def efficientvit_retinanet() -> nn.Module:
    """Build a RetinaNet with EfficientViT-M0 and EfficientViTFPN."""
    backbone = dict(type="mmvitaccel.EfficientViT", arch="m0", out_indices=(0, 1, 2))
    neck = dict(
        type="mmvitaccel.EfficientViTFPN", in_channels=(64, 128, 192), out_channels=16, num_outs=5,
        num_extra_trans_convs=1,
    )  # fmt: skip
    return retinanet(backbone, neck)


def _box_head(**changes: Any) -> dict[str, Any]:
    kind = dict(
        type="Shared2FCBBoxHead", in_channels=16, fc_out_channels=24, roi_feat_size=7,
        num_classes=3, bbox_coder=_CODER, reg_class_agnostic=False,
        loss_cls=dict(type="CrossEntropyLoss"), loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    return {**kind, **changes}


def extractor(size: int = 7, **changes: Any) -> dict[str, Any]:
    """Return a config of mmdet's RoI extractor; finest_scale suits the small images.

    Args:
        size: Output size.
        **changes: Changes of the config.
    """
    kind = dict(
        type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=size,
        sampling_ratio=0), out_channels=16, featmap_strides=[4, 8, 16, 32], finest_scale=14,
    )  # fmt: skip
    return {**kind, **changes}


def rcnn(cascade: bool = False, mask: bool = False, **roi_head: Any) -> nn.Module:
    """Build a Faster, Mask or Cascade R-CNN.

    Args:
        cascade: Whether to build a cascade of three stages.
        mask: Whether to add a mask head.
        **roi_head: Changes of the RoI head's config.
    """
    anchors = dict(
        type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
    )
    rpn = dict(
        type="RPNHead", in_channels=16, feat_channels=16, num_convs=2, anchor_generator=anchors,
        bbox_coder=_CODER, loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    head = dict(type="StandardRoIHead", bbox_roi_extractor=extractor(), bbox_head=_box_head())
    if cascade:
        stages = [_box_head(reg_class_agnostic=True) for _ in range(3)]
        head.update(
            type="mmvitaccel.CascadeRoIHead", num_stages=3, stage_loss_weights=[1, 1, 1],
            bbox_head=stages,
        )  # fmt: skip
    if mask:
        head["mask_roi_extractor"] = extractor(14)
        head["mask_head"] = dict(
            type="FCNMaskHead", num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
        )  # fmt: skip
    return build(
        dict(
            type="CascadeRCNN" if cascade else "MaskRCNN" if mask else "FasterRCNN",
            data_preprocessor=_PREPROCESSOR,
            backbone=VITDET,
            neck=PYRAMID,
            rpn_head=rpn,
            roi_head={**head, **roi_head},
            train_cfg=None,
            test_cfg=_RCNN_TEST,
        )
    )


def frames(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Iterator[Tensor]:
    """Yield images (3, H, W), float32 from 0 to 255; a random 24 x 24 square changes per frame.

    Args:
        count: Number of frames.
        seed: Seed of the images.
        size: (H, W).
    """
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randint(0, 256, (3, *size), generator=generator).float()
    for _ in range(count):
        yield picture
        picture = picture.clone()
        top, left = (int(torch.randint(0, n - 24, (), generator=generator)) for n in size)
        square = torch.randint(0, 256, (3, 24, 24), generator=generator)
        picture[:, top : top + 24, left : left + 24] = square


def sample(video_id: Any, frame_id: int | None, **meta: Any) -> Any:
    """Return the data sample of an image.

    Args:
        video_id: Video of the image; None for an image without a video.
        frame_id: Number of the frame.
        **meta: More metainfo.
    """
    from mmdet.structures import DetDataSample

    shape = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0)
    video = {} if video_id is None else dict(video_id=video_id, frame_id=frame_id)
    return DetDataSample(metainfo={**shape, **video, **meta})


def detect(model: nn.Module, pictures: Sequence[Tensor], samples: Sequence[Any]) -> list[Any]:
    """Return the instances that a detector finds in a batch, one entry per image."""
    with torch.no_grad():
        results = model.test_step(dict(inputs=list(pictures), data_samples=list(samples)))
    return [result.pred_instances for result in results]
