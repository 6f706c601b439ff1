# Mask R-CNN on ViTDet-B: in every block half of each window's tokens (of all tokens, where
# attention is global) merges before attention, and every token is restored behind the MLP.
_base_ = "../vitdet/mask-rcnn_vitdet-b_lsj-100e_coco.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=0.5,
        backbone={{_base_.model.backbone}},
    )
)
