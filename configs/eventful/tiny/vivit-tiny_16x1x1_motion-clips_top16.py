# In the spatial encoder, 16 of the 65 tokens of a time step pass each gate; attention is exact
# over what the gates let through. Takes the dense model's checkpoint, or the temporal sibling's.
_base_ = "../../vivit/vivit-tiny_16x1x1_motion-clips.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=16),
        attention="exact",
        backbone={{_base_.model.backbone}},
    ),
)
