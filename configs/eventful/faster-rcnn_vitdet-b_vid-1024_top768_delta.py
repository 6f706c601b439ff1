# The paper's attention: differences accumulated, an approximation.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top768.py"

model = dict(backbone=dict(attention="delta"))
