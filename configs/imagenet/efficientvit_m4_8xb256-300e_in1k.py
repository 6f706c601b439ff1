# Microsoft's EfficientViT-M4 on ImageNet-1k; needs mmpretrain (pip install mmpretrain==1.2.0).
_base_ = [
    "./_base_/efficientvit_m4.py",
    "mmpretrain::_base_/datasets/imagenet_bs256_levit_224.py",
    "./_base_/schedule_300e.py",
    "mmpretrain::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

train_dataloader = dict(sampler=dict(type="RepeatAugSampler", shuffle=True))
