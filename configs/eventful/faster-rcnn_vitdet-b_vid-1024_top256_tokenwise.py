# Gates around the linear layers only; attention products are computed whole.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top256.py"

model = dict(backbone=dict(attention="tokenwise"))
