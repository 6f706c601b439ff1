# Cascade Mask R-CNN on ViTDet-B. Box deltas and the mean of the stages are detectron2's, which the
# released weights are for; mmdet rounds the former and averages logits.
_base_ = [
    "mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py",
    "./_base_/lsj-100e_coco-instance.py",
    "./_base_/vitdet-b.py",
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # bottom and right, to a square
    backbone={{_base_.vitdet_b}},
    neck={{_base_.pyramid}},
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        type="mmvitaccel.CascadeRoIHead",
        bbox_head=[
            dict(
                type="Shared4Conv1FCBBoxHead",
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                norm_cfg={{_base_.layer_norm}},
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=target_stds
                ),
                reg_class_agnostic=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
            )
            for target_stds in (
                [0.1, 0.1, 0.2, 0.2],
                [0.05, 0.05, 0.1, 0.1],
                [1 / 30, 1 / 30, 1 / 15, 1 / 15],
            )
        ],
        mask_head=dict(norm_cfg={{_base_.layer_norm}}),
    ),
)
