# ViViT-B on EPIC-Kitchens-100 at 320 x 320, verbs and nouns: 32 frames, every second one at 60
# frames a second, 4 x 3 views in the test. Training starts from a Kinetics model:
#   load_from=work_dirs/vivit-base_32x2x1_kinetics400-rgb/epoch_30.pth
_base_ = "./vivit-base_32x2x1_kinetics400-rgb.py"

data_root = "data/epic-kitchens-100/"
img_size = 320

model = dict(
    backbone=dict(img_size=img_size, drop_path_rate=0.2),
    cls_head=dict(
        _delete_=True,
        type="mmvitaccel.VerbNounHead",
        in_channels=768,
        label_smooth_eps=0.2,
        average_clips="prob",
    ),
    # mmaction2's blending mixes single labels only
    data_preprocessor=dict(blending=None),
)

train_pipeline = [
    dict(type="mmvitaccel.OpenVideo"),
    dict(
        type="SampleFrames",
        clip_len=32,
        frame_interval=2,
        target_fps=60,
        out_of_bound_opt="repeat_last",
    ),
    dict(type="mmvitaccel.DecodeFrames"),
    dict(type="RandomRescale", scale_range=(336, 448)),
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
        target_fps=60,
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
        target_fps=60,
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
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.EpicKitchens",
        data_root=data_root,
        ann_file="annotations/EPIC_100_train.csv",
        data_prefix=dict(video="EPIC-KITCHENS"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.EpicKitchens",
        data_root=data_root,
        ann_file="annotations/EPIC_100_validation.csv",
        data_prefix=dict(video="EPIC-KITCHENS"),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.EpicKitchens",
        data_root=data_root,
        ann_file="annotations/EPIC_100_validation.csv",
        data_prefix=dict(video="EPIC-KITCHENS"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(_delete_=True, type="mmvitaccel.VerbNounAccuracy")
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=50)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        T_max=50,
        begin=0,
        end=50,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

# 32 GPUs x 4 clips.
auto_scale_lr = dict(base_batch_size=128)
