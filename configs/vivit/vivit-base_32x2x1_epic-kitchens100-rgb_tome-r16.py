# ToMe in the spatial encoder: of the 401 tokens of a time step, 16 are merged in each block. Takes
# the dense model's checkpoint.
_base_ = "./vivit-base_32x2x1_epic-kitchens100-rgb.py"

model = dict(
    backbone=dict(_delete_=True, type="mmvitaccel.ToMe", r=16, backbone={{_base_.model.backbone}})
)
