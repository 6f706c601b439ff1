# Every token whose error is above 1 passes: the cost follows the video (0.2, 1 and 5 in the paper).
_base_ = "./faster-rcnn_vitdet-b_vid-1024_top512.py"

model = dict(backbone=dict(policy=dict(_delete_=True, type="Threshold", threshold=1.0)))
