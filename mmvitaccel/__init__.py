"""Fast vision transformers for OpenMMLab: EfficientViT, ToMe and Eventful Transformers.

Importing the package closes the gaps of the installed stack first (:mod:`mmvitaccel.compat`),
then registers everything under the scope ``mmvitaccel``.
"""

from mmvitaccel.compat import apply as _close_stack_gaps

_close_stack_gaps()

from mmvitaccel.version import __version__  # noqa: E402  (the gaps must be closed before)

__all__ = ["__version__"]
