"""The part of a model that a file can replace, as one function of images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import package_of

Run = Callable[[Tensor], Sequence[Tensor]]


class GraphPart(nn.Module):
    """The part of a model that can be exported as one graph from images to tensors.

    For mmdet's one-stage detectors: backbone, neck and head without box decoding. For its two-stage
    detectors: backbone and neck. For other models: the backbone.

    Args:
        cfg: Its default scope names the model's package.
        model: In evaluation mode.

    Attributes:
        names: Names of its modules.
    """

    def __init__(self, cfg: Config, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.names = _names(cfg, model)
        self.spec: TreeSpec | None = None
        # The exporter applies the mode of the outermost module to all modules
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run on images (B, C, H, W), normalised and padded; returns all output tensors."""
        if self.names == ("backbone",):
            out = self.model.backbone(images)
        else:
            out = self.model.extract_feat(images)
            if "bbox_head" in self.names:
                out = self.model.bbox_head(out)
        flat, self.spec = tree_flatten(out)
        return tuple(flat)

    def modules_of(self) -> list[nn.Module]:
        """The modules with the weights of the part."""
        return [getattr(self.model, name) for name in self.names]

    def copied(self) -> GraphPart:
        """The same part of a copy of the model, with shared weights."""
        shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        return copy.deepcopy(self, shared)

    def replaced_by(self, run: Run) -> nn.Module:
        """A copy of the model, with shared weights, that calls another function in its place.

        Args:
            run: Function with the input and outputs of :meth:`forward`, which must have run once.
        """
        model, spec = self.copied().model, self.spec
        if self.names == ("backbone",):
            model.backbone.forward = lambda images: tree_unflatten(list(run(images)), spec)
        elif "bbox_head" in self.names:
            model.extract_feat = lambda images: list(run(images))
            model.bbox_head.forward = lambda flat: tree_unflatten(flat, spec)
        else:
            model.extract_feat = lambda images: tree_unflatten(list(run(images)), spec)
        return model


def _names(cfg: Config, model: nn.Module) -> tuple[str, ...]:
    if not isinstance(getattr(model, "backbone", None), nn.Module):
        raise UserError(
            f"{type(model).__name__} has no backbone, so no part of it can be exported."
        )
    if package_of(cfg) != "mmdet":
        return ("backbone",)
    # Imported here, because models of other packages do not need mmdet
    from mmdet.models.detectors import SingleStageDetector, TwoStageDetector

    neck = ("neck",) if isinstance(getattr(model, "neck", None), nn.Module) else ()
    if isinstance(model, SingleStageDetector):
        return ("backbone", *neck, "bbox_head")
    return ("backbone", *neck) if isinstance(model, TwoStageDetector) else ("backbone",)
