# ImageNet VID with DET's 30-class subset for training; frames of at most 1024 x 640.
# The json files are written by tools/dataset_converters/imagenet_vid.py (or mmtracking's).
data_root = "data/ILSVRC/"
img_scale = (1024, 640)
# The last three say which frame of which stream an image is.
test_meta_keys = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "video_id",
    "frame_id",
    "video_length",
)

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
    dict(type="PackDetInputs", meta_keys=test_meta_keys),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="mmvitaccel.ImageNetVID",
                data_root=data_root,
                ann_file=f"annotations/{name}.json",
                data_prefix=dict(img=f"Data/{kind}/"),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
            for name, kind in (("imagenet_vid_train", "VID"), ("imagenet_det_30plus1cls", "DET"))
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="mmvitaccel.VideoSampler"),
    dataset=dict(
        type="mmvitaccel.ImageNetVID",
        data_root=data_root,
        ann_file="annotations/imagenet_vid_val.json",
        data_prefix=dict(img="Data/VID/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="mmvitaccel.VIDMetric", ann_file=data_root + "annotations/imagenet_vid_val.json"
)
# Tests report the cost of a frame beside accuracy.
test_evaluator = [val_evaluator, dict(type="mmvitaccel.MacsMetric")]
custom_hooks = [dict(type="mmvitaccel.CostHook")]
