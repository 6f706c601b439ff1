# The published recipe: 300 epochs, AdamW, cosine, 8 GPUs x 256 images. The release scales its
# learning rate of 1e-3 by batch / 512, which is 4e-3 at 2048. It clips gradients adaptively
# (AGC, 0.02), which mmengine does not have; their norm is clipped here instead.
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=4e-3, weight_decay=0.025, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={".attention_biases": dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-6 / 4e-3,
        by_epoch=True,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=5, end=300),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
val_cfg = {}
test_cfg = {}
custom_hooks = [dict(type="EMAHook", momentum=4e-5, priority="ABOVE_NORMAL")]
auto_scale_lr = dict(base_batch_size=2048)
