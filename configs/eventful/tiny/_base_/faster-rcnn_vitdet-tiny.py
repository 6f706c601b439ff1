# The detector of the paper's ImageNet VID model, small: 256 tokens, six blocks of which two are
# global, and pyramid, proposals and box head to match.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ViTDet",
        img_size=128,
        patch_size=8,
        embed_dim=96,
        depth=6,
        num_heads=3,
        window_size=4,
        window_block_indexes=(0, 1, 3, 4),
        use_rel_pos=True,
        pretrain_img_size=128,
    ),
    neck=dict(
        _delete_=True,
        type="mmvitaccel.SimpleFPN",
        in_channels=96,
        out_channels=64,
        patch_size=8,
        scale_factors=(1.0, 0.5),
        num_outs=3,
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[8, 16]),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=128,
            norm_cfg=dict(type="mmvitaccel.LN2d", eps=1e-6),
            num_classes=5,
            reg_decoded_bbox=True,
            loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(score_thr=0.05, max_per_img=20)),
)
