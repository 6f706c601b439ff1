# mmpretrain's ViT-B/16 on ImageNet-1k with 8 tokens merged in each block: to train with merging,
# or to test weights that were trained without. Needs mmpretrain (pip install mmpretrain==1.2.0).
_base_ = "mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=8,
        backbone={{_base_.model.backbone}},
    )
)
