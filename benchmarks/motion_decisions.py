"""Value of each design decision of ``motion``, in one number each.

    python benchmarks/motion_decisions.py IMAGE           # half a minute
    python benchmarks/motion_decisions.py IMAGE --record

The camera pans over a still. Each row has a measurement with the decision (``as it is``) and with
the alternative (``instead``). Models have fixed random weights: two blocks of ViTDet-B, one
windowed and one global, and four blocks of ViT-S, on frames of 672 pixels. A seventh of the tokens
pass. No times are measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel import TopK, Translation, apply_eventful
from mmvitaccel.core.eventful.gates.required import Required
from mmvitaccel.core.eventful.maps.sheets import Sheet
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.aligned import NaiveScene, aligned_vit, aligned_vitdet, on_frame
from mmvitaccel.testing.models import sharing_weights, timm_model, vitdet

PATCH, ROOM = 16, 128
STRIDES = (4, 8, 16, 32, 64)  # strides of the pyramid's levels


@dataclass(frozen=True)
class Row:
    """One decision.

    Attributes:
        decision: Subject of the decision.
        measured: What was measured.
        chosen: Value with the decision.
        instead: Value with the alternative.
    """

    decision: str
    measured: str
    chosen: float
    instead: float


class Still:
    """A picture over which the camera pans.

    Args:
        image: (height, width, 3), from 0 to 255.
        size: Side of a frame in pixels.
    """

    def __init__(self, image: np.ndarray, size: int) -> None:
        side = size + 2 * ROOM
        whole = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        self.size = size
        self._whole = torch.from_numpy(whole).float().permute(2, 0, 1)[None] / 127.5 - 1

    def at(self, y: int, x: int) -> Tensor:
        """Return the frame (1, 3, size, size) of a camera that is moved by some pixels."""
        y, x = y + ROOM, x + ROOM
        return self._whole[..., y : y + self.size, x : x + self.size].clone()

    @property
    def grid(self) -> tuple[int, int]:
        """Grid (H, W) of a frame in tokens."""
        return (self.size // PATCH,) * 2

    @property
    def policy(self) -> TopK:
        """Policy by which a seventh of the tokens pass."""
        return TopK(self.grid[0] * self.grid[1] // 7)


class KeysStay(ExactAttention):
    """Exact attention in which keys that leave the view keep their previous positions."""

    def move(self, *args: object) -> None:
        """Leave the sums unchanged."""


def two_blocks(size: int) -> nn.Module:
    """Make two blocks of ViTDet-B with fixed random weights; the first is windowed."""
    torch.manual_seed(0)
    model = vitdet(img_size=size, depth=2, window_block_indexes=(0,))
    return model.eval().requires_grad_(False)


def apart(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return float((found - expected).norm() / expected.norm())


def positions(still: Still, model: nn.Module) -> Row:
    """Change of the tokens that stay, when the view moves by a row."""
    tokens = model.patch_embed(still.at(PATCH, 0))
    table = model.positions(still.grid)
    rows = (
        slice(1, None),
        slice(None, -1),
    )  # slots of the previous frame, and where their tokens are now
    before = model.patch_embed(still.at(0, 0))[:, rows[0]] + table[:, rows[0]]
    scene = Scene(Translation(), still.at(0, 0), PATCH)
    scene.follow(still.at(PATCH, 0))
    order = scene.ring.slots(0, torch.arange(1, still.grid[0] + 1))
    given = torch.empty_like(tokens)
    given[:, order] = tokens  # for each slot
    given = (given + table).flatten(1, 2)
    kept = scene.corrected(given, lambda: table.flatten(1, 2)).unflatten(1, still.grid)
    return Row(
        "absolute positions",
        "change of tokens that stay, when the view moves by a row",
        apart(kept[:, order][:, rows[1]], before),
        apart((tokens + table)[:, rows[1]], before),
    )


def reach(still: Still, model: nn.Module) -> Row:
    """Error of features with the positions of other places."""
    expected, table = model(still.at(0, 0))[0], model.positions(still.grid)
    errors = []
    for share in (Translation().reach, 0.5):
        cells = (torch.arange(still.grid[0]) + round(share * still.grid[0])).clamp_max(
            still.grid[0] - 1
        )
        moved = sharing_weights(model)
        moved.positions = lambda grid, cells=cells: table[:, cells]
        errors.append(apart(moved(still.at(0, 0))[0], expected))
    return Row("reach", "error of features at its end; instead: half of the picture", *errors)


def windows(still: Still, model: nn.Module) -> Row:
    """Share of tokens that stay but change after a windowed block, when the view moves by a row."""
    outs: list[Tensor] = []

    def first_block(model: nn.Module, place: tuple[int, int]) -> Tensor:
        model.blocks[0].register_forward_hook(lambda block, given, out: outs.append(out))
        model(still.at(place[0] * PATCH, place[1] * PATCH))
        return outs.pop()

    before = first_block(sharing_weights(model), (0, 0))[:, 1:]
    shares = []
    for on_scene in (True, False):
        moved = aligned_vitdet(model, still.grid, (1, 0))
        if not on_scene:
            del moved.blocks[0]._attention  # the method of the base class, with windows on the view
        now = first_block(moved, (1, 0))[:, :-1]
        changed = (now - before).norm(dim=-1) > 1e-4 * before.norm(dim=-1)
        shares.append(100 * float(changed.float().mean()))
    return Row(
        "window grid",
        "% of tokens that stay but change behind a windowed block, when the view moves by a row",
        *shares,
    )


def levels(still: Still) -> Iterator[Row]:
    """Recomputed part of the pyramid, if the view moves by a token or by the coarsest stride."""
    sizes = [math.ceil(still.size / stride) for stride in STRIDES]
    maps = [Sheet.of(torch.zeros(1, 1, side, side), 0) for side in sizes]
    areas = [side * side for side in sizes]
    whole = sum(
        area for sheet, area in zip(maps, areas) if sheet.step_of((1, 0), still.grid) is None
    )
    yield Row(
        "pyramid levels",
        "% of the pyramid computed whole, when the view moves by a token; instead: by "
        f"{max(STRIDES) // PATCH} tokens",
        100 * whole / sum(areas),
        0.0,
    )
    yield Row(
        "pyramid levels",
        "% of the frame beside the view, at most",
        100 * (PATCH - 1) / still.size,
        100 * (max(STRIDES) - 1) / still.size,
    )


def edges(still: Still) -> Iterator[Row]:
    """Area that a pan leaves without tokens, and boxes of the view against those of the frame."""
    beside, off = [], {maps: [] for maps in ("frame", "view")}
    for maps, found in off.items():
        scene = Scene(Translation(maps=maps), still.at(0, 0), PATCH)
        for t in range(1, ROOM // 3):
            scene.follow(still.at(0, 3 * t))
            found.append(max(map(abs, scene.beyond)))
            if maps == "view":
                beside.append(found[-1] / still.size)
    tokens = still.grid[0] * still.grid[1]
    more = (still.grid[0] + 1) * (still.grid[1] + 1)
    yield Row(
        "partial edge patches",
        "% of the frame without tokens, mean over a pan by 3 pixels",
        100 * float(np.mean(beside)),
        0.0,
    )
    yield Row("partial edge patches", "tokens per frame, with a fixed camera too", tokens, more)
    yield Row(
        "boxes",
        "pixels by which boxes lie off, mean over a pan by 3 pixels; instead: those of the view",
        float(np.mean(off["frame"])),
        float(np.mean(off["view"])),
    )


def padding(still: Still) -> Row:
    """Share of patches that stay but change in a pan, for pictures with and without padding."""
    shares = []
    for padded in (True, False):
        frames = [still.at(0, PATCH * t) for t in range(6)]
        if padded:
            for frame in frames:
                frame[..., 3 * still.size // 4 :] = 0
        scene = Scene(Translation(reach=0.9), frames[0], PATCH)
        before, found = frames[0].clone(), []
        for frame in frames[1:]:
            now = scene.follow(frame).clone()
            changed = (now != before).unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
            stays = ~scene.entered(now.device)
            found.append(float(changed.amax((0, 1, 3, 5)).flatten()[stays].float().mean()))
            before = now
        shares.append(100 * float(np.mean(found)))
    return Row(
        "padding at the right and bottom",
        "% of patches that stay but change in a pan by a patch, of a frame padded by a quarter; "
        "instead: not padded",
        *shares,
    )


def keys_that_leave(still: Still, model: nn.Module) -> Row:
    """Error against the mode that keeps no sums, after a pan by one patch per frame."""
    errors = []
    for mode in (ExactAttention(), KeysStay()):
        models = [sharing_weights(model), sharing_weights(model)]
        for each, attention in zip(models, (mode, "tokenwise")):
            apply_eventful(each, still.policy, attention, motion=Translation())
        for t in range(4):
            found, expected = (each(still.at(PATCH * t, 0))[0] for each in models)
        errors.append(apart(found, expected))
    return Row("keys that leave the running sums", "error of features by the sums", *errors)


def class_token(still: Still) -> Row:
    """Error of ViT-S's class token after eight frames, if it passes like other tokens or always."""
    torch.manual_seed(0)
    size = dict(img_size=still.size, num_classes=0, global_pool="", depth=4)
    dense = timm_model("vit_small_patch16_224", **size).eval().requires_grad_(False)
    first = torch.zeros(still.grid[0] * still.grid[1] + 1, dtype=torch.bool)
    first[0] = True
    errors = []
    for policy in (still.policy, Required(still.policy, first, 1)):
        model, naive = sharing_weights(dense), NaiveScene(PATCH, ROOM)
        handle = apply_eventful(model, policy, motion=Translation())
        for t in range(8):
            frame = still.at(0, 3 * t)
            found = model(frame)
            view = naive.see(frame, handle.uncounted_frames[0].camera.offset)
        aligned = aligned_vit(dense, still.grid, naive.first, (0, 21), PATCH)
        errors.append(apart(found[:, 0], aligned(view)[:, 0]))
    return Row(
        "class and register tokens",
        "error of the class token after a pan by 3 pixels; instead: it passes every gate",
        *errors,
    )


def maps(still: Still, model: nn.Module) -> Row:
    """Error of the tokens of a view half a patch away, returned on the frame."""
    offset, naive = (PATCH // 2, PATCH // 2), NaiveScene(PATCH, ROOM)
    naive.see(still.at(0, 0), (0, 0))
    view, frame = naive.see(still.at(*offset), offset), still.at(*offset)
    seen = aligned_vitdet(model, still.grid, naive.first)(view)[0].flatten(2).transpose(1, 2)
    expected = model(frame)[0].flatten(2).transpose(1, 2)
    nearest = tuple(PATCH * round(pixels / PATCH) for pixels in offset)
    errors = [
        apart(on_frame(seen, still.grid, naive.first, at, PATCH), expected)
        for at in (offset, nearest)
    ]
    return Row(
        "maps",
        "error of tokens given back on a frame half a patch away; instead: the nearest token",
        *errors,
    )


def measure(image: np.ndarray, size: int) -> Iterator[Row]:
    """Measure all decisions."""
    still, model = Still(image, size), two_blocks(size)
    yield positions(still, model)
    yield reach(still, model)
    yield from edges(still)
    yield class_token(still)
    yield windows(still, model)
    yield keys_that_leave(still, model)
    yield padding(still)
    yield maps(still, model)
    yield from levels(still)


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the record if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="a still")
    parser.add_argument("--size", type=int, default=672, help="side of the frames, in pixels")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording, rows = Recording(args.record, __file__, argv), []
    image = cv2.imread(args.image)
    if image is None:
        raise UserError(f"{args.image} cannot be read as a picture; give a photograph.")
    if args.size < 4 * PATCH or args.size % PATCH:
        raise UserError(
            f"--size {args.size} must be a multiple of {PATCH} and at least {4 * PATCH}."
        )
    with torch.inference_mode():
        for row in measure(image, args.size):
            rows.append(row)
            print(f"{row.decision}: {row.measured}", flush=True)
            print(f"{'':4}as it is {row.chosen:.3g}, instead {row.instead:.3g}", flush=True)
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
