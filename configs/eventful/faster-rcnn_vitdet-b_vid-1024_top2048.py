# Top 512 at 1024, with 2048 tokens.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top512.py"

model = dict(backbone=dict(policy=dict(k=2048)))
