# ViTDet-B on ImageNet VID at 672 x 672, with the weights of the model trained at 1024. The paper's
# code resizes relative positions pair by pair, which its figures at this size are of.
_base_ = [
    "./_base_/faster-rcnn_vitdet-b.py",
    "./_base_/imagenet_vid_672.py",
    "./_base_/schedule_5e.py",
    "mmdet::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(pad_size_divisor=672),
    backbone=dict(rel_pos_resize="pairs"),
)
