# 100 epochs of COCO with large-scale jittering at batch 64, AdamW, and a learning rate that decays
# by 0.7 from block to block towards the input, as released.
_base_ = "mmdet::common/lsj-100e_coco-instance.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            "backbone.pos_embed": dict(lr_mult=0.7**13, decay_mult=0.0),
            "backbone.patch_embed": dict(lr_mult=0.7**13),
            # The longest name that a parameter's holds counts: norms first, then their blocks.
            **{f"backbone.blocks.{i}.": dict(lr_mult=0.7 ** (12 - i)) for i in range(12)},
            **{
                f"backbone.blocks.{i}.norm": dict(lr_mult=0.7 ** (12 - i), decay_mult=0.0)
                for i in range(12)
            },
        },
    ),
)
# Steps after 8/9 and 26/27 of the 25 rounds through the set, which is repeated four times.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=25, milestones=[22, 24], gamma=0.1),
]
