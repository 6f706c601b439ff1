# Mask R-CNN with Microsoft's EfficientViT-M4, COCO 1x. For ImageNet weights, as the published
# run has them, see retinanet_efficientvit_m4_coco.py.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "./_base_/schedules/efficientvit_1x.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.EfficientViT",
        arch="m4",
        out_indices=(0, 1, 2),
        window_size=(7, 7, 7),
        frozen_stages=-1,
        norm_eval=True,
    ),
    neck=dict(
        _delete_=True,
        type="mmvitaccel.EfficientViTFPN",
        in_channels=[128, 256, 384],
        out_channels=256,
        num_outs=5,
        num_extra_trans_convs=2,
    ),
)
