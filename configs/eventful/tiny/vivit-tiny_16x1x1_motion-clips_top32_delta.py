# The paper's attention: differences accumulated, an approximation.
_base_ = "./vivit-tiny_16x1x1_motion-clips_top32.py"

model = dict(backbone=dict(attention="delta"))
