# Fine-tune the temporal encoder on what the spatial one makes with k=8:
#   python tools/cache_spatial.py \
#       configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top8.py \
#       DENSE_CHECKPOINT data/motion_clips_spatial_top8
#   python tools/train.py configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top8_temporal.py
# and test the result with vivit-tiny_16x1x1_motion-clips_top8.py.
_base_ = "./_base_/vivit-tiny_16x1x1_motion-clips_temporal.py"

data_root = "data/motion_clips_spatial_top8/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
load_from = data_root + "weights.pth"
