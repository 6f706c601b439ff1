# A ViT on log-mel spectrograms (128 frames x 80 bins in patches of 8 x 8: 160 tokens) in
# mmaction2's audio recognizer, with 8 tokens merged in each block.
_base_ = (
    "mmaction::recognition_audio/resnet/tsn_r18_8xb320-64x1x1-100e_kinetics400-audio-feature.py"
)

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=8,
        backbone=dict(
            type="mmvitaccel.TIMMBackbone",
            model_name="vit_small_patch16_224",
            img_size=(128, 80),
            patch_size=8,
            in_channels=1,
            features_only=True,
            out_indices=(11,),
            drop_path_rate=0.1,
            as_tuple=False,
        ),
    ),
    cls_head=dict(in_channels=384, dropout_ratio=0.0),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True, begin=5, end=50),
]
auto_scale_lr = dict(enable=False, base_batch_size=512)
