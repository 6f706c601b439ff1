# Gates around the linear layers only; attention products are computed whole.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(backbone=dict(attention="tokenwise"))
