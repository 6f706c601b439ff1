# Gates around the linear layers only; attention products are computed whole.
_base_ = "./faster-rcnn_vitdet-b_vid-672_top512.py"

model = dict(backbone=dict(attention="tokenwise"))
