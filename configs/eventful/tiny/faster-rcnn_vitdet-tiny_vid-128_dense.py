# A small ViTDet detector that learns generated videos on a CPU in minutes, every frame computed
# whole; the eventful ones of this folder are made from it.
_base_ = [
    "./_base_/faster-rcnn_vitdet-tiny.py",
    "./_base_/generated_vid.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

epochs = 5
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(pos_embed=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=100),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-5,
        begin=0,
        end=epochs,
        T_max=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    logger=dict(interval=20),
)
randomness = dict(seed=0)
