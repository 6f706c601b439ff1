# ViViT-B on Kinetics-400 at 224 x 224: 32 frames, every second one, 4 x 3 views in the test.
# Training starts from an image transformer; see "Weights" in README.md:
#   load_from=vit_base_patch16_224_as_vivit.pth
_base_ = ["mmaction::_base_/default_runtime.py", "./_base_/vivit_b.py"]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

data_root = "data/kinetics400/"
img_size = 224

model = dict(
    data_preprocessor=dict(blending=dict(type="MixupBlending", num_classes=400, alpha=0.2))
)

train_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(type="SampleFrames", clip_len=32, frame_interval=2, out_of_bound_opt="repeat_last"),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="RandomRescale", scale_range=(256, 320)),
    dict(type="RandomCrop", size=img_size),
    dict(type="Flip", flip_ratio=0.5),
    dict(type="ColorJitter", brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
val_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(
        type="SampleFrames",
        clip_len=32,
        frame_interval=2,
        test_mode=True,
        out_of_bound_opt="repeat_last",
    ),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="Resize", scale=(-1, img_size)),
    dict(type="CenterCrop", crop_size=img_size),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
test_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(
        type="SampleFrames",
        clip_len=32,
        frame_interval=2,
        num_clips=4,
        test_mode=True,
        out_of_bound_opt="repeat_last",
    ),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="Resize", scale=(-1, img_size)),
    dict(type="ThreeCrop", crop_size=img_size),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VideoDataset",
        data_root=data_root,
        ann_file="kinetics400_train_list_videos.txt",
        data_prefix=dict(video="videos_train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        data_root=data_root,
        ann_file="kinetics400_val_list_videos.txt",
        data_prefix=dict(video="videos_val"),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        data_root=data_root,
        ann_file="kinetics400_val_list_videos.txt",
        data_prefix=dict(video="videos_val"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="AccMetric")
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.1))
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=2.5,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        T_max=30,
        begin=0,
        end=30,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.001)]

# 32 GPUs x 8 clips.
auto_scale_lr = dict(enable=False, base_batch_size=256)
