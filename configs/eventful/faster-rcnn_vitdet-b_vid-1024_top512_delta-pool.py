# The paper's attention with keys and values of global blocks averaged over 2 x 2 tokens.
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top512.py"

model = dict(backbone=dict(attention="delta", kv_pool_size=2))
