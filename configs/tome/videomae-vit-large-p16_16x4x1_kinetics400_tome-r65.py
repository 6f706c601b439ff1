# VideoMAE ViT-L on Kinetics-400, 1568 tokens a clip, 65 merged in each block. MAE models that
# were not trained with merging do without proportional attention.
_base_ = "mmaction::recognition/videomae/vit-large-p16_videomae-k400-pre_16x4x1_kinetics-400.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=65,
        proportional_attention=False,
        backbone={{_base_.model.backbone}},
    )
)
