# The paper's attention: differences accumulated, an approximation.
_base_ = "./vivit-base_32x2x1_epic-kitchens100-rgb_top100.py"

model = dict(backbone=dict(attention="delta"))
