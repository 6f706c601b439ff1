# Every token whose error is above 1 passes: the cost follows the video.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_top64.py"

model = dict(backbone=dict(policy=dict(_delete_=True, type="Threshold", threshold=1.0)))
