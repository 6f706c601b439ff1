# A small ViViT that learns to tell seven motions apart, in minutes on a CPU. Write the clips first:
#   python tools/dataset_converters/make_motion_clips.py
_base_ = "mmaction::_base_/default_runtime.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

data_root = "data/motion_clips/"
batch_size = 28
epochs = 6
lr = 1e-3

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="mmvitaccel.ViViT",
        img_size=64,
        num_frames=16,
        tubelet_size=(2, 8, 8),
        embed_dim=64,
        spatial_depth=3,
        temporal_depth=2,
        num_heads=4,
        mlp_ratio=4,
        # The default of 0.02 is that of wide models; at 64 channels this gives 0.08 to 0.13.
        init_cfg=dict(type="Xavier", layer="Linear", distribution="uniform"),
    ),
    cls_head=dict(
        type="TimeSformerHead", num_classes=7, in_channels=64, topk=(1,), average_clips="prob"
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[114.75, 114.75, 114.75],
        std=[57.375, 57.375, 57.375],
        format_shape="NCTHW",
    ),
)

train_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(type="SampleFrames", clip_len=16),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
test_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(type="SampleFrames", clip_len=16, test_mode=True),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="CenterCrop", crop_size=64),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VideoDataset",
        data_root=data_root,
        ann_file="train.txt",
        data_prefix=dict(video=""),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        data_root=data_root,
        ann_file="val.txt",
        data_prefix=dict(video=""),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="AccMetric", metric_options=dict(top_k_accuracy=dict(topk=(1,))))
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=lr, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        eta_min=lr * 0.01,
        T_max=epochs,
        begin=0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
