"""The methods in pure torch, without OpenMMLab packages."""
