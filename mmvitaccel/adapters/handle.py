"""Base class of handles."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from mmvitaccel.adapters.attach import detach, link
from mmvitaccel.adapters.base import host_class


class Handle:
    """Controls a method on one model.

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
        """Whether the method of this handle is still attached."""
        found = link(self.model, self.method)
        return found is not None and found.state is self._state

    def check_attached(self, refused: str) -> None:
        """Refuse what would have no effect, because the method is no longer attached.

        Args:
            refused: What is refused, for the message.

        Raises:
            RuntimeError: It was removed or replaced.
        """
        if not self.attached:
            raise RuntimeError(
                f"{self.method}: {refused}, this handle's {self.method} was removed from its "
                f"{host_class(self.model).__name__} or replaced; use the newer handle or apply "
                "it again."
            )

    def remove(self) -> None:
        """Restore the model exactly; a second call has no effect."""
        if self.attached:
            detach(self.model, self.method)
