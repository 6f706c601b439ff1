# The feature pyramid is eventful too: the 64 cells of its input that changed most are let through.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="mmvitaccel.EventfulNeck",
        policy=dict(type="TopK", k=64),
        neck={{_base_.model.neck}},
    )
)
