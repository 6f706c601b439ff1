# TimeSformer with divided attention on Kinetics-400: each frame's 196 patches merge around the
# spatial attention and are restored behind it, where the temporal attention needs them.
_base_ = "mmaction::recognition/timesformer/timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.py"

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=32,
        backbone={{_base_.model.backbone}},
    )
)
