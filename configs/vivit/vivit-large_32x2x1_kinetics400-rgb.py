_base_ = "./vivit-base_32x2x1_kinetics400-rgb.py"

model = dict(
    backbone=dict(
        embed_dim=1024, spatial_depth=24, temporal_depth=4, num_heads=16, mlp_ratio=4, with_cp=True
    ),
    cls_head=dict(in_channels=1024),
)
