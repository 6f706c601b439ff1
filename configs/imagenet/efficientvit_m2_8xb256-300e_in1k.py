_base_ = ["./efficientvit_m4_8xb256-300e_in1k.py"]

model = dict(
    backbone=dict(arch="m2"),
    neck=dict(in_channels=224),
    head=dict(in_channels=224),
)
