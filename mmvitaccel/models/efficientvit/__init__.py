"""Microsoft's EfficientViT (CVPR 2023): backbone, pyramid, classifier and deployment forms."""
