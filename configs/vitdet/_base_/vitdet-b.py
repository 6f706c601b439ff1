# ViTDet-B and its pyramid. The configs beside this folder put them into mmdet's detectors.
# For MAE's weights, https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth, set
# model.backbone.init_cfg=dict(type="Pretrained", checkpoint="mae_pretrain_vit_base.pth").
vitdet_b = dict(
    _delete_=True,
    type="mmvitaccel.ViTDet",
    img_size=1024,
    patch_size=16,
    embed_dim=768,
    depth=12,
    num_heads=12,
    window_size=14,
    window_block_indexes=(0, 1, 3, 4, 6, 7, 9, 10),
    use_rel_pos=True,
    drop_path_rate=0.1,
)
pyramid = dict(
    _delete_=True, type="mmvitaccel.SimpleFPN", in_channels=768, out_channels=256, num_outs=5
)
layer_norm = dict(type="mmvitaccel.LN2d", eps=1e-6)
