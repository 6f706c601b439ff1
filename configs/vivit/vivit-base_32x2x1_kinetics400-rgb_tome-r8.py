# ToMe in the spatial encoder: of the 197 tokens of a time step, 8 are merged in each block. Takes
# the dense model's checkpoint.
_base_ = "./vivit-base_32x2x1_kinetics400-rgb.py"

model = dict(
    backbone=dict(_delete_=True, type="mmvitaccel.ToMe", r=8, backbone={{_base_.model.backbone}})
)
