# A small ViTDet detector for videos of 320 pixels: 1600 tokens, six blocks of which two are global.
# At this size, recomputing what changed is faster than computing everything. `make demo-video`
# trains it on a CPU: first at 160 pixels (faster-rcnn_vitdet-small_vid-160.py), then here.
_base_ = [
    "../eventful/tiny/_base_/faster-rcnn_vitdet-tiny.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

img_size = 320
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(img_size=img_size, pretrain_img_size=img_size, embed_dim=192),
    neck=dict(in_channels=192),
)

# drawn by the project, below data_root
generated = dict(
    images=dict(
        num_train=400,
        num_val=1,
        img_size=(img_size, img_size),
        objects=(4, 10),
        object_size=(0.08, 0.3),
        noise=2.0,
    ),
    videos=dict(
        num_train=1,
        num_val=6,
        num_frames=40,
        img_size=(img_size, img_size),
        objects=(4, 10),
        object_size=(0.08, 0.3),
        speed=0.01,
        noise=2.0,
    ),
)
data_root = "work_dirs/demo_video/data_320/"
classes = ("ball", "leaf", "brick", "crystal", "starfish")
epochs = 2
lr = 3e-4

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
    dict(type="Resize", scale=(img_size, img_size), keep_ratio=True),
    dict(
        type="PackDetInputs",
        meta_keys=(
            "img_id",
            "img_path",
            "ori_shape",
            "img_shape",
            "scale_factor",
            "video_id",
            "frame_id",
            "video_length",
        ),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="images/annotations/instances_train.json",
        data_prefix=dict(img="images/train/"),
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
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
    type="mmvitaccel.VIDMetric", ann_file=data_root + "videos/annotations/vid_val.json"
)
# Tests report the cost of a frame beside accuracy.
test_evaluator = [val_evaluator, dict(type="mmvitaccel.MacsMetric")]
custom_hooks = [dict(type="mmvitaccel.CostHook")]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=lr, betas=(0.9, 0.99), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(pos_embed=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=10),
    dict(
        type="CosineAnnealingLR",
        eta_min=lr * 0.03,
        begin=0,
        end=epochs,
        T_max=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=epochs + 1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    logger=dict(interval=10),
)
randomness = dict(seed=0)
