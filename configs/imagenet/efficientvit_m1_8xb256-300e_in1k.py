_base_ = ["./efficientvit_m4_8xb256-300e_in1k.py"]

model = dict(
    backbone=dict(arch="m1"),
    neck=dict(in_channels=192),
    head=dict(in_channels=192),
)
