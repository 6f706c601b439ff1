"""Operators of ``mmcv._ext`` in torchvision or torch, with mmcv's argument names.

mmcv allocates the results and passes them in; these functions fill them. Half and bfloat16 are
computed in float32, which torchvision's own kernels do under autocast as well.
"""
