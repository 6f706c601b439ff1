# ImageNet VID with frames of at most 672 x 420.
_base_ = "./imagenet_vid_1024.py"

img_scale = (672, 420)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=img_scale, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=img_scale, keep_ratio=True),
    dict(type="PackDetInputs", meta_keys={{_base_.test_meta_keys}}),
]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type="mmvitaccel.ImageNetVID",
                data_root={{_base_.data_root}},
                ann_file=f"annotations/{name}.json",
                data_prefix=dict(img=f"Data/{kind}/"),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
            for name, kind in (("imagenet_vid_train", "VID"), ("imagenet_det_30plus1cls", "DET"))
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
