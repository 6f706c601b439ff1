# All parts compute what changed: the 128 tokens that changed most pass each gate of the backbone,
# and the 128 cells that moved most the one before the pyramid, which both heads follow.
_base_ = "./faster-rcnn_vitdet-b_vid-672_dense.py"

custom_hooks = [
    dict(type="mmvitaccel.CostHook"),
    dict(
        type="mmvitaccel.EventfulHook",
        policy=dict(type="TopK", k=128),
        attention="exact",
        parts="all",
    ),
]
