# STGT, the paper's baseline: gates compare with the frame before, passed or not.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(backbone=dict(attention="tokenwise", reference="last_frame"))
