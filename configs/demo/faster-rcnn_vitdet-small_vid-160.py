# The first part of the small VID detector's training: cheap images of 160 pixels, whose objects
# have the same size in pixels as those of 320. `make demo-video` goes on with
# faster-rcnn_vitdet-small_vid-320.py.
_base_ = "./faster-rcnn_vitdet-small_vid-320.py"

# in place of what is drawn for 320 pixels
generated = dict(
    _delete_=True,
    images=dict(num_train=1500, num_val=1, img_size=(160, 160), object_size=(0.16, 0.6), noise=2.0),
)
data_root = "work_dirs/demo_video/data_160/"
epochs = 3
lr = 1e-3

train_dataloader = dict(batch_size=16, dataset=dict(data_root=data_root))
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.02, by_epoch=False, begin=0, end=60),
    dict(
        type="CosineAnnealingLR",
        eta_min=lr * 0.1,
        begin=0,
        end=epochs,
        T_max=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs)
# videos are tested at 320 pixels
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
