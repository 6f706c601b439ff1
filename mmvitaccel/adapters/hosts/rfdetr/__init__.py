"""RF-DETR's backbone."""
