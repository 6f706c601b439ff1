# Temporal fine-tuning as in the paper: AdamW at a constant 1e-5 for 5 epochs, 8 clips a step.
_base_ = "../../vivit/vivit-base_32x2x1_epic-kitchens100-rgb.py"

data_root = "data/epic-kitchens-100_spatial/"

model = dict(
    backbone=dict(freeze_spatial=True, drop_path_rate=0.0),
    cls_head=dict(dropout_ratio=0.5, label_smooth_eps=0.0),
    data_preprocessor=dict(_delete_=True, type="ActionDataPreprocessor"),
)

train_dataloader = dict(
    batch_size=8,
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
    batch_size=8,
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

train_cfg = dict(max_epochs=5)
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.05))
param_scheduler = []
custom_hooks = []
auto_scale_lr = dict(base_batch_size=8)
# What the features were computed with; tools/cache_spatial.py leaves it beside them.
load_from = data_root + "weights.pth"
