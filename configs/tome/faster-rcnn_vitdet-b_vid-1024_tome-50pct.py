# Faster R-CNN on ViTDet-B for ImageNet VID, with half of the tokens merged in every block.
_base_ = "../eventful/faster-rcnn_vitdet-b_vid-1024_dense.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmvitaccel.ToMe",
        r=0.5,
        backbone={{_base_.model.backbone}},
    )
)
