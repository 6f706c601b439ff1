# Mask R-CNN on ViTDet-B.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "./_base_/lsj-100e_coco-instance.py",
    "./_base_/vitdet-b.py",
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # bottom and right, to a square
    backbone={{_base_.vitdet_b}},
    neck={{_base_.pyramid}},
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", norm_cfg={{_base_.layer_norm}}),
        mask_head=dict(norm_cfg={{_base_.layer_norm}}),
    ),
)
