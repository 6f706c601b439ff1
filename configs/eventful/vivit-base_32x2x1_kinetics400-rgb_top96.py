# In the spatial encoder, 96 of the 197 tokens of a time step pass each gate; attention is exact
# over what the gates let through. Takes the dense model's checkpoint, or the temporal sibling's.
_base_ = "../vivit/vivit-base_32x2x1_kinetics400-rgb.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=96),
        attention="exact",
        backbone={{_base_.model.backbone}},
    ),
)
