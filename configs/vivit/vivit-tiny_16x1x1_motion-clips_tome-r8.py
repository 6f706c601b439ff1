# ToMe in the spatial encoder: of the 65 tokens of a time step, 8 are merged in each block. Takes
# the dense model's checkpoint.
_base_ = "./vivit-tiny_16x1x1_motion-clips.py"

model = dict(
    backbone=dict(_delete_=True, type="mmvitaccel.ToMe", r=8, backbone={{_base_.model.backbone}})
)
