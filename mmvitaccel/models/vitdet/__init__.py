"""ViTDet (ECCV 2022): backbone, simple feature pyramid, cascade head."""
