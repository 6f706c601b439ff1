# The paper's attention: differences accumulated, an approximation.
_base_ = "./faster-rcnn_vitdet-b_vid-672_top256.py"

model = dict(backbone=dict(attention="delta"))
