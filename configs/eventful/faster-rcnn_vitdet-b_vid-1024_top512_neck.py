# The feature pyramid is eventful too: the 512 cells of its input that changed most are let through.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top512.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="mmvitaccel.EventfulNeck",
        policy=dict(type="TopK", k=512),
        neck={{_base_.model.neck}},
    )
)
