# The 512 tokens that changed most pass each gate; attention is exact over what the gates let
# through. No training: it takes the dense model's checkpoint.
_base_ = "./faster-rcnn_vitdet-b_vid-672_dense.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=512),
        attention="exact",
        backbone={{_base_.model.backbone}},
    ),
)
