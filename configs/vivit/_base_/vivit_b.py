"""ViViT-B with a factorised encoder as a recognizer of 32-frame clips."""

model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="mmvitaccel.ViViT",
        img_size=224,
        num_frames=32,
        tubelet_size=(2, 16, 16),
        embed_dim=768,
        spatial_depth=12,
        temporal_depth=4,
        num_heads=12,
        mlp_ratio=4,
        drop_path_rate=0.1,
    ),
    cls_head=dict(
        type="TimeSformerHead",
        num_classes=400,
        in_channels=768,
        label_smooth_eps=0.1,
        average_clips="prob",
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[114.75, 114.75, 114.75],
        std=[57.375, 57.375, 57.375],
        format_shape="NCTHW",
    ),
)
