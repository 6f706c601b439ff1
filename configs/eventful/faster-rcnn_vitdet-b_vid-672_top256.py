# Top 512 at 672, with 256 tokens.
_base_ = "./faster-rcnn_vitdet-b_vid-672_top512.py"

model = dict(backbone=dict(policy=dict(k=256)))
