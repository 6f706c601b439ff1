"""ViViT (ICCV 2021): backbone, encoders, head with two classifiers."""
