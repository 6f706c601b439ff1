# The paper's off-the-shelf ViT-B/16 (AugReg, from timm) with 13 tokens merged in each block; to
# be tested, not trained. Needs mmpretrain (pip install mmpretrain==1.2.0).
_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs64_pil_resize_autoaug.py",
    "mmpretrain::_base_/default_runtime.py",
]

custom_imports = dict(imports=["mmvitaccel"], allow_failed_imports=False)

model = dict(
    type="TimmClassifier",
    model_name="vit_base_patch16_224.augreg_in21k_ft_in1k",
    pretrained=True,
    loss=dict(type="CrossEntropyLoss"),
)
custom_hooks = [dict(type="mmvitaccel.ToMeHook", r=13)]
# what these weights were trained on: pixels in [-1, 1], a crop of 90 %
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=248, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = {}
