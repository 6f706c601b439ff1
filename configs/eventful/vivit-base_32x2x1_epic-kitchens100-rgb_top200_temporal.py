# Fine-tune the temporal encoder on what the spatial one makes with k=200:
#   python tools/cache_spatial.py \
#       configs/eventful/vivit-base_32x2x1_epic-kitchens100-rgb_top200.py \
#       DENSE_CHECKPOINT data/epic-kitchens-100_spatial_top200
#   python tools/train.py configs/eventful/vivit-base_32x2x1_epic-kitchens100-rgb_top200_temporal.py
# and test the result with vivit-base_32x2x1_epic-kitchens100-rgb_top200.py.
_base_ = "./_base_/vivit-base_32x2x1_epic-kitchens100-rgb_temporal.py"

data_root = "data/epic-kitchens-100_spatial_top200/"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
load_from = data_root + "weights.pth"
