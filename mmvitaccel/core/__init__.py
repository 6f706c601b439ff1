"""The methods, in pure torch: nothing here imports an OpenMMLab package."""
