# Fine-tune an ImageNet model downstream: CIFAR-100, upscaled, 300 epochs, batch 256, no weight
# decay to speak of. Where the weights are is for the command line:
#   --cfg-options model.backbone.init_cfg.type=Pretrained \
#                 model.backbone.init_cfg.checkpoint=efficientvit_m4.pth
_base_ = [
    "./_base_/efficientvit_m4.py",
    "mmpretrain::_base_/datasets/cifar100_bs16.py",
    "./_base_/schedule_300e.py",
    "mmpretrain::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(head=dict(num_classes=100))
# images are RGB already; the statistics are those of the ImageNet weights
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
upscale = dict(type="Resize", scale=224, interpolation="bicubic", backend="pillow")
train_pipeline = [
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    upscale,
    dict(type="PackInputs"),
]
test_pipeline = [upscale, dict(type="PackInputs")]
train_dataloader = dict(batch_size=256, num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256, num_workers=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=1e-8))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=5, end=300),
]
auto_scale_lr = dict(base_batch_size=256)
