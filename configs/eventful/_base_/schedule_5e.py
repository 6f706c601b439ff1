# Batch 8, AdamW 1e-4, weight decay 0.1, 5 epochs, as published; warm-up and the step are not
# published and are ViTDet's habits.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", milestones=[4], gamma=0.1, by_epoch=True, begin=0, end=5),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=5, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(enable=False, base_batch_size=8)
