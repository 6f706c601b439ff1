# Temporal fine-tuning of the tiny model: AdamW at a constant 3e-4 for 10 epochs, 28 clips a step.
_base_ = "../../../vivit/vivit-tiny_16x1x1_motion-clips.py"

data_root = "data/motion_clips_spatial/"

model = dict(
    backbone=dict(freeze_spatial=True, drop_path_rate=0.0),
    data_preprocessor=dict(_delete_=True, type="ActionDataPreprocessor"),
)

train_dataloader = dict(
    batch_size=28,
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.SpatialFeatures",
        data_root=data_root,
        ann_file="train/index.json",
        pipeline=[
            dict(type="mmvitaccel.LoadSpatialFeatures", views="random"),
            dict(type="PackActionInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=28,
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.SpatialFeatures",
        data_root=data_root,
        ann_file="val/index.json",
        pipeline=[
            dict(type="mmvitaccel.LoadSpatialFeatures", views="all"),
            dict(type="PackActionInputs"),
        ],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=3e-4, weight_decay=0.05))
param_scheduler = []
custom_hooks = []
auto_scale_lr = dict(base_batch_size=28)
# What the features were computed with; tools/cache_spatial.py leaves it beside them.
load_from = data_root + "weights.pth"
