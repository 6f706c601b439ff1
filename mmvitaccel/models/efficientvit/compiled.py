"""EfficientViT as compiled steps for inference on a CPU, in one call from images to features.

At small batch sizes, this network spends most of its time in hundreds of small operators and their
copies, not in multiply-adds. Here, a convolution with its activation and residual is one step,
heads read their channels and windows without copies, and weights are packed once.
"""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.core.kernels import maps
from mmvitaccel.core.kernels.export import refuse_export
from mmvitaccel.core.kernels.library.choice import chosen
from mmvitaccel.core.kernels.operators import kernels
from mmvitaccel.core.locks import Lock
from mmvitaccel.models.efficientvit.attention import CascadedGroupAttention
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.plain import why_not_plain
from mmvitaccel.models.efficientvit.plan import Plan, PlanBuilder

_PLANS_KEPT = 4  # number of input sizes whose steps and maps are cached

_NOT_EXPORTED = (
    "CompiledEfficientViT cannot be exported: its steps are compiled for this CPU and are not "
    "part of a graph; export the original EfficientViT."
)


class CompiledEfficientViT(nn.Module):
    """An :class:`EfficientViT` for inference on a CPU in single precision, without gradients.

    The weights are copied with the BatchNorm folded; later changes to the model have no effect.

    Args:
        model: The model, which is not changed.

    Raises:
        TypeError: The model is not an :class:`EfficientViT`.
        ValueError: The model is not in single precision on a CPU, its channels are not a multiple
            of the vector size, or it has a hook, a replaced ``forward`` or a wrapper, which would
            have no effect.
        RuntimeError: No compiled kernels are available.

    Examples:
        >>> detector.backbone = CompiledEfficientViT(detector.backbone)
    """

    def __init__(self, model: EfficientViT) -> None:
        super().__init__()
        if not isinstance(model, EfficientViT):
            raise TypeError(
                f"CompiledEfficientViT: the model is a {type(model).__name__}; give an "
                f"EfficientViT, such as a detector's backbone."
            )
        _check_hooks(model)
        model = copy.deepcopy(model).eval()
        model.switch_to_deploy()
        _check(model)
        self._model = [model]  # in a list, so that its parameters are not registered here
        self._packed: dict[int, tuple[Tensor, ...]] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}
        self._lock = Lock()  # threads share the maps

    def __prepare_scriptable__(self) -> Any:
        """Called by ``torch.jit.script``, which is not supported."""
        raise RuntimeError(_NOT_EXPORTED)

    def __reduce__(self) -> tuple[type, tuple[EfficientViT]]:
        """Copy and pickle the model instead, because the steps hold addresses of own tensors."""
        return CompiledEfficientViT, (self._model[0],)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps, as :meth:`EfficientViT.forward` does.

        Args:
            x: Images (B, ``in_channels``, H, W), float32, on a CPU.

        Returns:
            For each of ``out_indices``, (B, ``embed_dims[i]``, ceil(H / s), ceil(W / s)) with s
            16, 32, 64.

        Raises:
            ValueError: The input is not a batch of images in single precision on a CPU.
            RuntimeError: The module is being traced or exported.
        """
        refuse_export(_NOT_EXPORTED)
        channels = self._model[0].in_channels
        images = x.dim() == 4 and x.shape[1] == channels and x.numel() > 0
        if not images or x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"CompiledEfficientViT: the input is {tuple(x.shape)}, {x.dtype} on {x.device}; it "
                f"must be images (B, {channels}, H, W) in float32 on a CPU."
            )
        x = x.contiguous()
        with self._lock:
            plan = self._plan(x)
            plan.array[0].in_ = x.data_ptr()
            maps.run_steps(
                [x, *plan.maps], ctypes.addressof(plan.array), len(plan.array), plan.macs
            )
            # Copied, because the next call overwrites the same maps
            return tuple(
                out.data.view(len(x), out.height, out.width, -1).permute(0, 3, 1, 2).clone()
                for out in plan.outs
            )

    def _plan(self, x: Tensor) -> Plan:
        """Return the steps for images of this size."""
        plan = self._plans.get(tuple(x.shape))
        if plan is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[tuple(x.shape)] = PlanBuilder(self._packed).build(self._model[0], x)
        return plan


def _check_hooks(model: EfficientViT) -> None:
    for name, module in model.named_modules():
        reason = why_not_plain(module)
        if reason is not None:
            raise ValueError(
                f"CompiledEfficientViT: '{name}' {reason}, which would have no effect in "
                f"compiled steps; remove it, or use it on the outputs."
            )


def _check(model: EfficientViT) -> None:
    layers = [m for m in model.modules() if isinstance(m, ConvNorm)]
    weights = [layer.c.weight for layer in layers]
    if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        raise ValueError(
            f"CompiledEfficientViT: the model is in {weights[0].dtype} on {weights[0].device}; "
            "it must be in float32 on a CPU."
        )
    if kernels() is None:
        raise RuntimeError(f"CompiledEfficientViT needs compiled kernels: {chosen().why}.")
    for name, module in model.named_modules():
        channels = 0  # processed in whole vectors
        if isinstance(module, CascadedGroupAttention):
            channels = module.head_dims
        elif isinstance(module, ConvNorm) and module.c.groups > 1:
            channels = module.c.in_channels
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            depth = module.weight[0].numel()
            if depth > maps.deepest():
                raise ValueError(
                    f"CompiledEfficientViT: '{name}' sums {depth} products for an output; "
                    f"the maximum is {maps.deepest()}."
                )
        if channels % maps.lanes():
            raise ValueError(
                f"CompiledEfficientViT: '{name}' has {channels} channels; this machine needs "
                f"multiples of {maps.lanes()}."
            )
