"""ViViT with a factorised encoder (Arnab et al., "ViViT", ICCV 2021, section 3.3, model 2).

A spatial transformer encodes the tubelets of each time step independently. A temporal transformer
encodes the resulting class tokens, one for each step. Only the pixels differ from step to step, so
Eventful can be applied to the spatial encoder.

Shapes: B clips, T frames, S = T / tubelet frames time steps, N tubelets per step, C channels.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor, nn

from mmvitaccel.arguments import flag, number, whole_number, whole_numbers
from mmvitaccel.models.vivit.encoder import ClassTokenEncoder
from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS

# ViViT-B as released for Kinetics-400 and EPIC-Kitchens, and ViViT-L of the paper.
VIVIT_SIZES: dict[str, dict[str, Any]] = {
    "base": dict(embed_dim=768, spatial_depth=12, temporal_depth=4, num_heads=12, mlp_ratio=4),
    "large": dict(embed_dim=1024, spatial_depth=24, temporal_depth=4, num_heads=16, mlp_ratio=4),
}


@MODELS.register_module()
class ViViT(PretrainedBackbone):
    """Video transformer with a spatial encoder of each time step and a temporal encoder of steps.

    A backbone for mmaction2's ``Recognizer3D``. Modules: ``patch_embed`` (the tubelet embedding),
    ``spatial`` and ``temporal`` (:class:`ClassTokenEncoder`).

    Args:
        img_size: Height and width, or one side, in pixels, for which the positions are created.
        num_frames: Clip length T for which the positions are created.
        tubelet_size: Frames, height and width of a tubelet; also its stride.
        in_channels: Channels of a frame.
        embed_dim: Channels C of a token.
        spatial_depth: Number of blocks of the spatial encoder.
        temporal_depth: Number of blocks of the temporal encoder.
        num_heads: Number of attention heads in both encoders.
        mlp_ratio: Ratio of the MLPs' hidden width to ``embed_dim``.
        arch: A key of ``VIVIT_SIZES``, instead of the five arguments before it.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 in the first.
        freeze_spatial: Train only the temporal encoder; the tubelet embedding and the spatial
            encoder stay in evaluation mode.
        with_cp: Recompute blocks in the backward pass instead of storing their activations.
        init_cfg: Initialization config of mmengine; pretrained weights that do not match raise an
            error.

    Raises:
        ValueError: A size is not divisible as required, ``arch`` is unknown, or another argument is
            out of range.

    Example:
        >>> model = ViViT(img_size=32, num_frames=4, embed_dim=24, num_heads=2)
        >>> model(torch.zeros(2, 3, 4, 32, 32)).shape
        torch.Size([2, 24])
    """

    # Weights of an image transformer have only the spatial encoder.
    MAY_LACK = ("temporal.",)

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        num_frames: int = 32,
        tubelet_size: tuple[int, int, int] = (2, 16, 16),
        in_channels: int = 3,
        embed_dim: int = 768,
        spatial_depth: int = 12,
        temporal_depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        arch: str | None = None,
        drop_path_rate: float = 0.0,
        freeze_spatial: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        owner = "ViViT"
        counts = dict(
            embed_dim=embed_dim,
            spatial_depth=spatial_depth,
            temporal_depth=temporal_depth,
            num_heads=num_heads,
        )
        size = {name: whole_number(owner, name, n, least=1) for name, n in counts.items()}
        size["mlp_ratio"] = number(owner, "mlp_ratio", mlp_ratio, above=0)
        in_channels = whole_number(owner, "in_channels", in_channels, least=1)
        num_frames = whole_number(owner, "num_frames", num_frames, least=1, of="frames")
        drop_path_rate = number(owner, "drop_path_rate", drop_path_rate, least=0, below=1)
        freeze_spatial = flag(owner, "freeze_spatial", freeze_spatial)
        with_cp = flag(owner, "with_cp", with_cp)
        size = size if arch is None else _size_of(arch, size)
        dim, heads, ratio = size["embed_dim"], size["num_heads"], size["mlp_ratio"]
        if dim % heads:
            raise ValueError(
                f"ViViT: embed_dim={dim} is not a multiple of num_heads={heads}; "
                "set one so that each head has the same width."
            )
        self.embed_dim = dim
        why = "give (frames, height, width)"
        self.tubelet_size = whole_numbers(
            owner, "tubelet_size", tubelet_size, least=1, count=3, why=why
        )
        self.freeze_spatial = freeze_spatial
        sides = (img_size, img_size) if isinstance(img_size, Real) else img_size
        why = "give one side or (height, width), in pixels"
        sides = whole_numbers(owner, "img_size", sides, least=1, count=2, why=why)
        steps, *grid = self._grid_of(num_frames, *sides)

        self.patch_embed = nn.Conv3d(in_channels, dim, self.tubelet_size, self.tubelet_size)
        depth = size["spatial_depth"]
        last = depth + size["temporal_depth"] - 1
        rates = [drop_path_rate * i / max(last, 1) for i in range(last + 1)]
        self.spatial = ClassTokenEncoder(tuple(grid), dim, heads, ratio, rates[:depth], with_cp)
        self.temporal = ClassTokenEncoder((steps,), dim, heads, ratio, rates[depth:], with_cp)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if freeze_spatial:
            self.patch_embed.requires_grad_(False)
            self.spatial.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode clips.

        Args:
            x: Clips (B, in_channels, T, H, W), or outputs (B, S, C) of :meth:`forward_spatial`, for
                which only the temporal encoder runs.

        Returns:
            (B, C), the temporal class token after the last norm.

        Raises:
            ValueError: The shape is neither of the two, or a side is not a multiple of the
                tubelet's.
        """
        if x.ndim == 3 and x.shape[2] == self.embed_dim:
            return self.forward_temporal(x)
        if x.ndim != 5:
            raise ValueError(
                f"ViViT: the input has shape {tuple(x.shape)}; give clips as (N, channels, "
                f"frames, height, width) or spatial class tokens as (N, steps, {self.embed_dim})."
            )
        return self.forward_temporal(self.forward_spatial(x))

    def forward_spatial(self, x: Tensor) -> Tensor:
        """Encode each time step independently: clips (B, in_channels, T, H, W) to (B, S, C)."""
        tokens, grid_size = self.embed(x)
        return self.encode_steps(tokens, grid_size)

    def forward_temporal(self, x: Tensor) -> Tensor:
        """Encode spatial class tokens (B, S, C) of any number of steps into (B, C)."""
        return self.temporal(x, (x.shape[1],))

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed the tubelets of clips.

        Args:
            x: (B, in_channels, T, H, W).

        Returns:
            Tokens (B, S, N, C) and their grid (H, W) in tubelets.

        Raises:
            ValueError: A side is not a multiple of the tubelet's.
        """
        _, *grid = self._grid_of(*x.shape[2:])
        x = self.patch_embed(x)  # (B, C, S, H', W')
        return x.flatten(3).permute(0, 2, 3, 1), tuple(grid)  # (B, S, N, C)

    def forward_step(self, x: Tensor) -> Tensor:
        """Encode the next time step of a stream.

        If the model is eventful, the step continues the stream that is named around the call.

        Args:
            x: (B, in_channels, tubelet frames, H, W).

        Returns:
            (B, C).

        Raises:
            ValueError: A side is not a multiple of the tubelet's.
        """
        tokens, grid_size = self.embed(x)
        return self.encode_step(tokens[:, 0], grid_size)

    def encode_steps(self, tokens: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Run the spatial encoder over all time steps of clips: (B, S, N, C) to (B, S, C)."""
        x = self.encode_step(tokens.flatten(0, 1), grid_size)  # (B * S, N, C) -> (B * S, C)
        return x.unflatten(0, tokens.shape[:2])

    def encode_step(
        self, tokens: Tensor, grid_size: tuple[int, int], keep: Tensor | None = None
    ) -> Tensor:
        """Run the spatial encoder over single time steps.

        Args:
            tokens: (B, N, C).
            grid_size: Grid (H, W) of the N tubelets.
            keep: Positions (B, M) of the tokens to encode, at least one; None for all.

        Returns:
            (B, C).
        """
        return self.spatial(tokens, grid_size, keep)

    def train(self, mode: bool = True) -> ViViT:
        """Set training mode; a frozen spatial encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_spatial:
            self.patch_embed.eval()
            self.spatial.eval()
        return self

    def _grid_of(self, *sides: int) -> tuple[int, int, int]:
        """Number of tubelets along the frames, the height and the width of a clip."""
        for name, side, tubelet in zip(("frames", "height", "width"), sides, self.tubelet_size):
            if side < 1 or side % tubelet:
                raise ValueError(
                    f"ViViT: {name}={side} is not a multiple of the tubelet's {tubelet} "
                    f"(tubelet_size={self.tubelet_size}); sample, crop or pad the clip to one."
                )
        return tuple(side // tubelet for side, tubelet in zip(sides, self.tubelet_size))


def _size_of(arch: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return row ``arch`` of the table; refuse arguments that contradict it."""
    if not isinstance(arch, str) or arch not in VIVIT_SIZES:
        raise ValueError(f"ViViT: arch={arch!r} is not known; known are {', '.join(VIVIT_SIZES)}.")
    row, default = VIVIT_SIZES[arch], VIVIT_SIZES["base"]
    for name, value in given.items():
        if value not in (default[name], row[name]):
            raise ValueError(
                f"ViViT: {name}={value} was given with arch={arch!r}, which has {row[name]}; "
                "give one of the two."
            )
    return row
