# STGT, the paper's baseline: gates compare with the frame before, passed or not.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top2048.py"

model = dict(backbone=dict(attention="tokenwise", reference="last_frame"))
