# 200 of the 1600 tokens pass each gate; attention is exact over what the gates let through.
_base_ = "./faster-rcnn_vitdet-small_vid-320.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=200),
        attention="exact",
        backbone={{_base_.model.backbone}},
    ),
)
