"""Microsoft's EfficientViT as a backbone (Liu et al., CVPR 2023, arXiv:2305.07027).

Not to be confused with MIT's EfficientViT (Cai et al., ICCV 2023), which is another network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmvitaccel.arguments import flag, number, whole_number, whole_numbers
from mmvitaccel.models.efficientvit.arch import name_arch, read_arch
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.layers import (
    EfficientViTBlock,
    patch_embedding,
    subsampling,
)
from mmvitaccel.models.efficientvit.weights import explain_weights, from_timm
from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class EfficientViT(PretrainedBackbone):
    """Cascaded group attention in windows, at strides 16, 32 and 64 (section 3, table 1).

    Args:
        arch: ``'m0'`` to ``'m5'``, or a dict with ``embed_dims``, ``depths`` and ``num_heads`` of
            each stage, and ``kernels``, the kernel sizes of the depthwise convolutions on the query
            of each head. Defaults to ``'m4'``.
        out_indices: Stages whose outputs are returned, from 0; later stages are not built.
        window_size: Side of the attention window in each stage, in tokens, or one number for all
            stages. The detectors use (7, 7, 7), the ImageNet models (7, 7, 4).
        frozen_stages: Freezes the patch embedding and stages 0 to ``frozen_stages - 1``; 0 freezes
            only the patch embedding, -1 nothing.
        norm_eval: Keep BatchNorm in eval mode while training.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0.
        with_cp: Recompute blocks in the backward pass instead of storing their activations.
        deploy: Build with every BatchNorm folded into its convolution. Folded and unfolded weights
            can be loaded.
        in_channels: Channels of the images, 3 by default; 1 for grey images, 4 with depth or
            infrared.
        init_cfg: Initialization config of mmengine. ``dict(type='Pretrained', checkpoint=...)``
            loads released, timm's and this package's weights, resizes the attention biases to the
            windows and adapts the first convolution to ``in_channels``. Other weights raise an
            error.

    Raises:
        ValueError: An argument is out of range.
    """

    STEM = "patch_embed.0.c.weight"

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = "m4",
        out_indices: Sequence[int] = (0, 1, 2),
        window_size: int | Sequence[int] = (7, 7, 7),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = read_arch(arch)
        num_stages = len(self.arch["embed_dims"])
        self.out_indices = read_out_indices(out_indices, num_stages)
        self.window_size = read_window_size(window_size, num_stages)
        owner = "EfficientViT"
        self.frozen_stages = whole_number(
            owner, "frozen_stages", frozen_stages, least=-1, most=num_stages,
            why=f"-1 freezes nothing and {num_stages} all stages",
        )  # fmt: skip
        drop_path_rate = number(owner, "drop_path_rate", drop_path_rate, least=0, below=1)
        self.in_channels = whole_number(owner, "in_channels", in_channels, least=1)
        self.norm_eval = flag(owner, "norm_eval", norm_eval)
        self.with_cp = flag(owner, "with_cp", with_cp)
        deploy = flag(owner, "deploy", deploy)
        self.deploy = False

        self.patch_embed = patch_embedding(self.arch["embed_dims"][0], self.in_channels)
        self.num_stages = max(self.out_indices) + 1
        for stage, blocks in enumerate(self._make_stages(drop_path_rate)):
            setattr(self, f"blocks{stage + 1}", nn.Sequential(*blocks))
        if deploy:
            self.switch_to_deploy()
        self._freeze_stages()

    def _make_stages(self, drop_path_rate: float) -> Iterator[list[nn.Module]]:
        """Yield the modules of each stage that is built."""
        arch = self.arch
        rates = torch.linspace(0, drop_path_rate, sum(arch["depths"])).tolist()
        widths, block = arch["embed_dims"], 0
        for stage in range(self.num_stages):
            modules = []
            if stage > 0:
                modules += subsampling(widths[stage - 1], widths[stage], rates[block])
            for _ in range(arch["depths"][stage]):
                modules.append(
                    EfficientViTBlock(
                        widths[stage],
                        arch["num_heads"][stage],
                        self.window_size[stage],
                        arch["kernels"],
                        drop_path=rates[block],
                    )
                )
                block += 1
            yield modules

    @property
    def stages(self) -> list[nn.Sequential]:
        """The built stages; all except the first begin with subsampling."""
        return [getattr(self, f"blocks{stage + 1}") for stage in range(self.num_stages)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of images of any size.

        A trace by ``torch.jit.trace`` is valid only for its image size; a graph exported to ONNX is
        valid for all sizes.

        Args:
            x: (B, ``in_channels``, H, W).

        Returns:
            For each of ``out_indices``, (B, ``embed_dims[i]``, ceil(H / s), ceil(W / s)) with s
            16, 32, 64.

        Raises:
            ValueError: The input is not a batch of images of ``in_channels`` channels.
        """
        # Comparing traced sizes would only warn; the convolution still checks them
        if not torch.jit.is_tracing() and (x.dim() != 4 or x.size(1) != self.in_channels):
            raise ValueError(
                f"EfficientViT: the input is {tuple(x.shape)}; it must be images (B, "
                f"{self.in_channels}, H, W), or set in_channels to that of the images."
            )
        x = self.patch_embed(x)
        outs = []
        for stage, blocks in enumerate(self.stages):
            for block in blocks:
                x = self._run(block, x)
            if stage in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run one module of a stage, with activation checkpointing if enabled and useful."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(
                block,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), norm_statistics_kept(block)),
            )
        return block(x)

    def train(self, mode: bool = True) -> EfficientViT:
        """Set the mode, except for modules frozen by ``frozen_stages`` and ``norm_eval``."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        """Freeze the patch embedding and the frozen stages, including BatchNorm statistics."""
        if self.frozen_stages < 0:
            return
        for module in [self.patch_embed, *self.stages[: self.frozen_stages]]:
            module.eval()
            module.requires_grad_(False)

    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into its convolution, for inference; a second call has no effect."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.switch_to_deploy()
        self.deploy = True

    def translate(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights of the released layout or of timm's; drops the head."""
        return from_timm(weights)

    def explain(self, weights: Mapping[str, Tensor]) -> str | None:
        """Describe the architecture of weights that do not match."""
        return explain_weights(weights, self.state_dict().keys(), self.name)

    @property
    def name(self) -> str:
        """Name such as ``EfficientViT-M4``; includes the fields of a custom architecture."""
        known = name_arch(self.arch) if len(self.arch["embed_dims"]) == 3 else None
        fields = ", ".join(f"{key}={value}" for key, value in self.arch.items())
        return f"EfficientViT-{known.upper()}" if known else f"EfficientViT({fields})"


def read_out_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return the output stages in ascending order.

    Raises:
        ValueError: An index is not a stage, the order is not ascending, or there are no indices.
    """
    indices = whole_numbers("EfficientViT", "out_indices", out_indices, or_empty=True)
    if not indices or any(not 0 <= index < num_stages for index in indices):
        raise ValueError(
            f"EfficientViT: out_indices={indices} must name stages from 0 to {num_stages - 1}."
        )
    if list(indices) != sorted(set(indices)):
        raise ValueError(f"EfficientViT: out_indices={indices} must be in ascending order.")
    return indices


def read_window_size(window_size: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return the side of the window in each stage, in tokens.

    Raises:
        ValueError: The number of sides differs from that of the stages, or a side is below 1.
    """
    if isinstance(window_size, Real):
        side = whole_number("EfficientViT", "window_size", window_size, least=1, of="tokens")
        return (side,) * num_stages
    sizes = whole_numbers("EfficientViT", "window_size", window_size)
    if len(sizes) != num_stages or min(sizes) < 1:
        raise ValueError(
            f"EfficientViT: window_size={window_size} must be {num_stages} numbers of at least 1, "
            "one for each stage."
        )
    return sizes


@contextmanager
def norm_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Recompute a block without counting the batch twice in BatchNorm."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, count
