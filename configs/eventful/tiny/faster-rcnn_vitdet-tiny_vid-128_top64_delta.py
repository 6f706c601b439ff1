# The paper's attention: differences accumulated, an approximation.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(backbone=dict(attention="delta"))
