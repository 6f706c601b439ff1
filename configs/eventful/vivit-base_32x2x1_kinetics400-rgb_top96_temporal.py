# Fine-tune the temporal encoder on what the spatial one makes with k=96:
#   python tools/cache_spatial.py \
#       configs/eventful/vivit-base_32x2x1_kinetics400-rgb_top96.py \
#       DENSE_CHECKPOINT data/kinetics400_spatial_top96
#   python tools/train.py configs/eventful/vivit-base_32x2x1_kinetics400-rgb_top96_temporal.py
# and test the result with vivit-base_32x2x1_kinetics400-rgb_top96.py.
_base_ = "./_base_/vivit-base_32x2x1_kinetics400-rgb_temporal.py"

data_root = "data/kinetics400_spatial_top96/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
load_from = data_root + "weights.pth"
