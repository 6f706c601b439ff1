"""Records of the supported families of vision transformers."""
