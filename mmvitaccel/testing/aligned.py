"""Reference for moving cameras: dense models on frames that are aligned with the scene.

It follows the definition pixel by pixel, without the ring buffers of the implementation.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.testing.models import sharing_weights


class NaiveScene:
    """A plane into which frames are pasted and from which the view is cropped.

    Args:
        patch_size: Side of a patch in pixels.
        room: Margin of the plane on each side of the first frame, in pixels.
    """

    def __init__(self, patch_size: int, room: int) -> None:
        self.patch_size, self.room = patch_size, room
        self.plane: Tensor | None = None
        self.first: tuple[int, int] | None = None

    def see(self, frame: Tensor, offset: tuple[int, int], fits: bool = True) -> Tensor:
        """Paste a frame and return the view.

        Args:
            frame: (1, C, H, W).
            offset: (y, x) of the frame's top left pixel in the scene, in pixels.
            fits: Whether the frame shows the same scene; otherwise earlier frames are discarded.

        Returns:
            The view, (1, C, H, W): the latest pixel at each position since it came into view. A
            position without one has the nearest pixel of the frame.
        """
        before, patch = self.first, self.patch_size
        at = before or (0, 0)
        self.first = tuple(self._first(*axis) for axis in zip(offset, at))
        height, width = frame.shape[-2:]
        sides = ((self.room, self.room + width), (self.room, self.room + height))
        if self.plane is None:
            (_, right), (_, bottom) = sides
            size = (bottom + self.room, right + self.room)
            self.plane = frame.new_full((*frame.shape[:2], *size), torch.nan)
        top, left = (self.room + cell * patch for cell in self.first)
        seen = self.plane.clone()
        self.plane[:] = torch.nan  # discards what is out of view
        if before is not None and fits:
            old_top, old_left = (self.room + cell * patch for cell in before)
            old = slice(old_top, old_top + height), slice(old_left, old_left + width)
            self.plane[..., old[0], old[1]] = seen[..., old[0], old[1]]
        y, x = (self.room + pixels for pixels in offset)
        self.plane[..., y : y + height, x : x + width] = frame
        view = self.plane[..., top : top + height, left : left + width].clone()
        rows = (torch.arange(height) + top - y).clamp(0, height - 1)
        columns = (torch.arange(width) + left - x).clamp(0, width - 1)
        view = torch.where(view.isnan(), frame[..., rows, :][..., columns], view)
        self.plane[:] = torch.nan
        self.plane[..., top : top + height, left : left + width] = view
        return view

    def _first(self, pixels: int, cell: int) -> int:
        """Return the first patch of the view on one axis.

        The view moves once the frame is a whole patch away, to the first fully visible patch.
        """
        if abs(pixels - cell * self.patch_size) < self.patch_size:
            return cell
        ahead = pixels > cell * self.patch_size
        return (math.floor if ahead else math.ceil)(pixels / self.patch_size)


def aligned_vit(
    model: nn.Module,
    grid: tuple[int, int],
    first: tuple[int, int],
    offset: tuple[int, int],
    patch: int,
) -> nn.Module:
    """Return timm's ViT for a view: the position embeddings are those of the scene.

    Args:
        model: The dense model; not changed.
        grid: (H, W) of its tokens.
        first: Row and column of the view's corner in the scene, in tokens.
        offset: (y, x) of the frame in the scene, in pixels; the last block's output is resampled
            to the frame.
        patch: Side of a patch in pixels.
    """
    model = sharing_weights(model)
    table, count = model.pos_embed, grid[0] * grid[1]
    prefix, own = table.split((table.shape[1] - count, count), 1)
    model.pos_embed = nn.Parameter(torch.cat((prefix, _shifted(own, grid, first)), 1), False)

    def back(block: nn.Module, given: tuple, x: Tensor) -> Tensor:
        here, there = x.split((x.shape[1] - count, count), 1)
        return torch.cat((here, on_frame(there, grid, first, offset, patch)), 1)

    model.blocks[-1].register_forward_hook(back)
    return model


def _shifted(table: Tensor, grid: tuple[int, int], first: tuple[int, int]) -> Tensor:
    """Return the view's position embeddings (1, H * W, C); beyond the table, those of its edge."""
    rows, columns = (
        (torch.arange(side) + start).clamp(0, side - 1) for side, start in zip(grid, first)
    )
    return table.unflatten(1, grid)[:, rows][:, :, columns].flatten(1, 2)


def on_frame(
    tokens: Tensor,
    grid: tuple[int, int],
    first: tuple[int, int],
    offset: tuple[int, int],
    patch: int,
) -> Tensor:
    """Interpolate the tokens of a view (1, H * W, C) at the centres of the frame's patches.

    Args:
        tokens: (1, H * W, C).
        grid: (H, W).
        first: Row and column of the view's corner in the scene, in tokens.
        offset: (y, x) of the frame in the scene, in pixels.
        patch: Side of a patch in pixels.

    Returns:
        (1, H * W, C).
    """
    at = torch.stack(
        torch.meshgrid(
            *(
                (torch.arange(side) + pixels / patch - start).clamp(0, side - 1)
                for side, pixels, start in zip(grid, offset, first)
            ),
            indexing="ij",
        ),
        -1,
    )
    size = torch.tensor(grid)
    places = (2 * at + 1) / size - 1  # the unit of grid_sample: edges of the map are -1 and 1
    map_of = tokens.transpose(1, 2).unflatten(2, grid)
    out = F.grid_sample(
        map_of, places.flip(-1)[None].to(tokens), padding_mode="border", align_corners=False
    )
    return out.flatten(2).transpose(1, 2)


def aligned_vitdet(
    model: nn.Module,
    grid: tuple[int, int],
    first: tuple[int, int],
    offset: tuple[int, int] | None = None,
) -> nn.Module:
    """Return this package's ViTDet for a view: positions and windows are those of the scene.

    Args:
        model: The dense model; not changed.
        grid: (H, W) of its tokens.
        first: Row and column of the view's corner in the scene, in tokens.
        offset: (y, x) of the frame in the scene, in pixels; the features are resampled to the
            frame. None keeps them on the view.
    """
    model = sharing_weights(model)
    if model.pos_embed is not None:
        table = _shifted(model.positions(grid).flatten(1, 2), grid, first).unflatten(1, grid)
        model.positions = lambda grid_size: table
    for block in model.blocks:
        if block.window_size:
            block._attention = functools.partial(_windows_of_scene, block, first)

    def back(block: nn.Module, given: tuple, x: Tensor) -> Tensor:
        tokens = on_frame(x.flatten(1, 2), grid, first, offset, model.patch_size)
        return tokens.unflatten(1, grid)

    if offset is not None:
        model.blocks[-1].register_forward_hook(back)
    return model


def _windows_of_scene(block: nn.Module, first: tuple[int, int], x: Tensor) -> Tensor:
    """Compute a block's windowed attention over (1, H, W, C), with windows aligned to the scene."""
    (height, width), size = x.shape[1:3], block.window_size
    top, left = (start % size for start in first)
    below, right = -(top + height) % size, -(left + width) % size
    qkv = block.attn.qkv(x)
    whole = block.attn.qkv.bias.expand(1, top + height + below, left + width + right, -1).clone()
    whole[:, top : top + height, left : left + width] = qkv
    out = whole.new_zeros(*whole.shape[:3], x.shape[-1])
    for y in range(0, whole.shape[1], size):
        for x_ in range(0, whole.shape[2], size):
            window = whole[:, y : y + size, x_ : x_ + size].flatten(1, 2)
            found = block.attn.attend(window, (size, size)).unflatten(1, (size, size))
            out[:, y : y + size, x_ : x_ + size] = found
    return block.attn.proj(out[:, top : top + height, left : left + width])
