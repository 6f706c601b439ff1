# EfficientViT-M4 as an image classifier. Windows of 7, 7 and 4 tokens are those of the released
# ImageNet models: at 224 pixels the last stage has 4 x 4.
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="mmvitaccel.EfficientViT",
        arch="m4",
        out_indices=(2,),
        window_size=(7, 7, 4),
    ),
    neck=dict(type="mmvitaccel.EfficientViTPooling", in_channels=384),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=384,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
