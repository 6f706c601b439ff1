# The dense detector, trained on clips of two frames with a budget that each step draws.
# In the second frame 16 to 256 of the 256 tokens pass each gate. Tests are dense.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_dense.py"

frames = 2
model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(
                type="mmvitaccel.ClipFlip",
                frames=frames,
                prob=[0.25, 0.25, 0.25],
                direction=["horizontal", "vertical", "diagonal"],
            )
        ]
    )
)
# Flips are those of whole clips.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type="mmvitaccel.ClipSampler", frames=frames),
    batch_sampler=None,
    drop_last=True,
    dataset=dict(
        datasets=[
            dict(
                type="mmvitaccel.ImageNetVID",
                data_root={{_base_.data_root}},
                ann_file=ann_file,
                data_prefix=dict(img=pictures),
                metainfo=dict(classes={{_base_.classes}}),
                pipeline=train_pipeline,
            )
            for ann_file, pictures in (
                ("videos/annotations/vid_train.json", "videos/train/"),
                ("images/annotations/instances_train.json", "images/train/"),
            )
        ]
    ),
)
custom_hooks = [
    dict(type="mmvitaccel.CostHook"),
    dict(type="mmvitaccel.RandomBudgetHook", k=(16, 256), frames=frames),
]
