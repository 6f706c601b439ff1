# Faster R-CNN on ViTDet-B as the paper's ImageNet VID model has it: two convolutions in the RPN,
# four with LayerNorm in the box head, GIoU on decoded boxes, 30 classes.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # bottom and right, to 1024 x 1024
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ViTDet",
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        window_size=14,
        window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10),
        use_rel_pos=True,
        drop_path_rate=0.1,
    ),
    neck=dict(
        _delete_=True, type="mmvitaccel.SimpleFPN", in_channels=768, out_channels=256, num_outs=5
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead",
            conv_out_channels=256,
            norm_cfg=dict(type="mmvitaccel.LN2d", eps=1e-6),
            num_classes=30,
            reg_decoded_bbox=True,
            loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rpn=dict(max_per_img=300), rcnn=dict(score_thr=0.05)),
)
