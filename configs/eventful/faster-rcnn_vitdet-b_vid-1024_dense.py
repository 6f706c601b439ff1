# ViTDet-B on ImageNet VID at 1024 x 1024, every frame computed whole: the model that the eventful
# ones are made from, and the one to train.
_base_ = [
    "./_base_/faster-rcnn_vitdet-b.py",
    "./_base_/imagenet_vid_1024.py",
    "./_base_/schedule_5e.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)
