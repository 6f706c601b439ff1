# Fine-tune the temporal encoder on spatial features from disk (dense ones; the eventful siblings
# in configs/eventful/ change data_root alone).
#   python tools/cache_spatial.py configs/vivit/vivit-tiny_16x1x1_motion-clips.py \
#       work_dirs/vivit-tiny_16x1x1_motion-clips/epoch_20.pth data/motion_clips_spatial_dense
#   python tools/train.py configs/vivit/vivit-tiny_motion-clips_temporal.py
_base_ = "./vivit-tiny_16x1x1_motion-clips.py"

data_root = "data/motion_clips_spatial_dense/"
epochs = 10
lr = 3e-4

model = dict(
    backbone=dict(freeze_spatial=True),
    data_preprocessor=dict(_delete_=True, type="ActionDataPreprocessor"),
)

train_pipeline = [
    dict(type="mmvitaccel.LoadSpatialFeatures", views="random"),
    dict(type="PackActionInputs"),
]
test_pipeline = [
    dict(type="mmvitaccel.LoadSpatialFeatures", views="all"),
    dict(type="PackActionInputs"),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.SpatialFeatures",
        data_root=data_root,
        ann_file="train/index.json",
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="mmvitaccel.SpatialFeatures",
        data_root=data_root,
        ann_file="val/index.json",
        pipeline=test_pipeline,
        test_mode=True,
    )
)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(
        type="CosineAnnealingLR",
        eta_min=lr * 0.01,
        T_max=epochs,
        begin=0,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
# The weights that the features were computed with, left beside them by tools/cache_spatial.py.
load_from = data_root + "weights.pth"
