"""Operators of ``mmcv._ext`` in torchvision or torch, with mmcv's argument names.

mmcv allocates the results and passes them in; these functions fill them. float16 and bfloat16 are
computed in float32, as torchvision's kernels do under autocast.
"""
