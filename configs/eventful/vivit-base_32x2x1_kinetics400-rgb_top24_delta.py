# The paper's attention: differences accumulated, an approximation.
_base_ = "./vivit-base_32x2x1_kinetics400-rgb_top24.py"

model = dict(backbone=dict(attention="delta"))
