# All parts compute what changed: the 64 tokens that changed most pass each gate of the backbone,
# and the 64 cells that moved most the one before the pyramid, which both heads follow.
_base_ = "./faster-rcnn_vitdet-tiny_vid-128_dense.py"

custom_hooks = [
    dict(type="mmvitaccel.CostHook"),
    dict(
        type="mmvitaccel.EventfulHook",
        policy=dict(type="TopK", k=64),
        attention="exact",
        parts="all",
    ),
]
