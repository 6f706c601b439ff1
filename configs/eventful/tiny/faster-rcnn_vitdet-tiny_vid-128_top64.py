# A quarter of the 256 tokens passes each gate; attention is exact over what the gates let through.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_dense.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=64),
        attention="exact",
        backbone={{_base_.model.backbone}},
    ),
)
