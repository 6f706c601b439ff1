# The paper's attention with keys and values of global blocks averaged over 2 x 2 tokens.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(backbone=dict(attention="delta", kv_pool_size=2))
