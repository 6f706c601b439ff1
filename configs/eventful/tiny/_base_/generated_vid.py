# Videos drawn by the project, in CocoVID's layout, with generated images in the part that DET's
# have in ImageNet VID; tools/analysis/eventful_tradeoff.py draws both.
generated = dict(
    videos=dict(num_train=100, num_val=10, num_frames=40, img_size=(128, 128), noise=2.0),
    images=dict(num_train=1500, num_val=1, img_size=(128, 128), noise=2.0),
)
data_root = "work_dirs/eventful_tiny/data/"
classes = ("ball", "leaf", "brick", "crystal", "starfish")
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
    dict(
        type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 128), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=test_meta_keys),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="mmvitaccel.ImageNetVID",
                data_root=data_root,
                ann_file=ann_file,
                data_prefix=dict(img=pictures),
                metainfo=dict(classes=classes),
                pipeline=train_pipeline,
            )
            for ann_file, pictures in (
                ("videos/annotations/vid_train.json", "videos/train/"),
                ("images/annotations/instances_train.json", "images/train/"),
            )
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="mmvitaccel.VideoSampler"),
    dataset=dict(
        type="mmvitaccel.ImageNetVID",
        data_root=data_root,
        ann_file="videos/annotations/vid_val.json",
        data_prefix=dict(img="videos/val/"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="mmvitaccel.VIDMetric",
    ann_file=data_root + "videos/annotations/vid_val.json",
    by_motion=True,
)
# Tests report the cost of a frame beside accuracy.
test_evaluator = [val_evaluator, dict(type="mmvitaccel.MacsMetric")]
custom_hooks = [dict(type="mmvitaccel.CostHook")]
