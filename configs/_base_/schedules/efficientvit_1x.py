# 12 epochs, warm-up of 500 iterations, steps at 8 and 11, 8 x 2 images: mmdet's own 1x schedule;
# EfficientViT's detectors take AdamW instead of SGD, without weight decay on attention biases.
_base_ = "mmdet::_base_/schedules/schedule_1x.py"

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(attention_biases=dict(decay_mult=0.0))),
)
