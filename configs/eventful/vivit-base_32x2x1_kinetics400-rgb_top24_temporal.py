# Fine-tune the temporal encoder on what the spatial one makes with k=24:
#   python tools/cache_spatial.py \
#       configs/eventful/vivit-base_32x2x1_kinetics400-rgb_top24.py \
#       DENSE_CHECKPOINT data/kinetics400_spatial_top24
#   python tools/train.py configs/eventful/vivit-base_32x2x1_kinetics400-rgb_top24_temporal.py
# and test the result with vivit-base_32x2x1_kinetics400-rgb_top24.py.
_base_ = "./_base_/vivit-base_32x2x1_kinetics400-rgb_temporal.py"

data_root = "data/kinetics400_spatial_top24/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
load_from = data_root + "weights.pth"
