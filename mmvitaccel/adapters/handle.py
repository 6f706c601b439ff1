"""What the handles of all methods have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from mmvitaccel.adapters.attach import detach, link


class Handle:
    """Steers a method on one model.

    Args:
        model: The module that the method is on.

    Attributes:
        method: Name of the method.
        model: The module that it is on.
    """

    method: ClassVar[str]

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._state: Any = link(model, self.method).state

    @property
    def attached(self) -> bool:
        """Whether what this handle steers is still on its model."""
        found = link(self.model, self.method)
        return found is not None and found.state is self._state

    def remove(self) -> None:
        """Give the model back bit for bit; a second call changes nothing."""
        if self.attached:
            detach(self.model, self.method)
