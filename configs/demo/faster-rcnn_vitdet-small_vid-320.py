# A small ViTDet detector for videos of 320 pixels: 1600 tokens, six blocks of which two are global.
# At this size, recomputing what changed is faster than computing everything. `make demo-video`
# trains it on a CPU: first at 160 pixels (faster-rcnn_vitdet-small_vid-160.py), then here.
_base_ = "../eventful/tiny/faster-rcnn_vitdet-tiny_vid-128_dense.py"

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
epochs = 2
lr = 3e-4

# Its images alone, not its videos, are trained on.
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        type="CocoDataset",
        data_root=data_root,
        ann_file="images/annotations/instances_train.json",
        data_prefix=dict(img="images/train/"),
        metainfo=dict(classes={{_base_.classes}}),
        pipeline={{_base_.train_pipeline}},
    ),
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(img_size, img_size), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys={{_base_.test_meta_keys}}),
]
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "videos/annotations/vid_val.json")
test_evaluator = [
    dict(type="mmvitaccel.VIDMetric", ann_file=data_root + "videos/annotations/vid_val.json"),
    dict(type="mmvitaccel.MacsMetric"),
]

optim_wrapper = dict(optimizer=dict(lr=lr))
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
train_cfg = dict(max_epochs=epochs, val_interval=epochs + 1)
default_hooks = dict(logger=dict(interval=10))
