# Fine-tune the temporal encoder on what the spatial one makes with k=32:
#   python tools/cache_spatial.py \
#       configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top32.py \
#       DENSE_CHECKPOINT data/motion_clips_spatial_top32
#   python tools/train.py configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top32_temporal.py
# and test the result with vivit-tiny_16x1x1_motion-clips_top32.py.
_base_ = "./_base_/vivit-tiny_16x1x1_motion-clips_temporal.py"

data_root = "data/motion_clips_spatial_top32/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
load_from = data_root + "weights.pth"
