"""Cost of a moving camera for an eventful ViTDet-B, with and without following its motion.

    python benchmarks/moving_camera.py IMAGE                              # all moves, some minutes
    python benchmarks/moving_camera.py IMAGE --moves "pan 3 x" "pan 3 y"  # some of them
    python benchmarks/moving_camera.py IMAGE --moves "pan 3 x" --k 256 512 882
    python benchmarks/moving_camera.py IMAGE --moves "pan 3 x" --no-random --frames 101 --at 7 100
    python benchmarks/moving_camera.py IMAGE --record

The camera pans over a still by 0.5 to 16 pixels per frame in x, y and both, shakes like a hand, and
zooms by 1 % per frame. Weights are random and fixed. All models process the same frames alternately
in one process: ``plain`` without motion, ``motion`` with it, and ``random`` with it and the same
number of random tokens.

The error of a model without motion is relative to the dense model on the frame. That of a model
with motion is relative to the dense model on the picture that it processes: the still with the same
patch phase, positions and window borders, mapped to the frame in the same way. ``alignment`` is the
difference of these two dense models. Times are those of the frames after the second; ``ratio`` is
the ratio of mean times to a plain model with the same budget.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel import RandomTokens, TopK, Translation, apply_eventful
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.aligned import NaiveScene, aligned_vitdet
from mmvitaccel.testing.models import sharing_weights, vitdet

SPEEDS, DIRECTIONS = (0.5, 1, 3, 8, 16), {"x": (0, 1), "y": (1, 0), "both": (1, 1)}
SHAKE, ZOOM = 6, 1.01  # pixels of a hand's larger movements; zoom per frame

KINDS = {"plain": TopK, "motion": TopK, "random": RandomTokens}

Place = tuple[float, float, float]  # pixels down and right, and the zoom around the centre
Move = Callable[[int], Place]  # maps a frame's number to its movement


@dataclass(frozen=True)
class Row:
    """One model at one frame of one movement.

    Attributes:
        move: Movement of the camera.
        model: ``plain``, ``motion`` or ``random``.
        k: Tokens that pass each gate.
        frame: Index of the frame, from 0.
        error: Norm of the difference of its features to the dense ones, over the norm of the
            latter.
        alignment: The same for the dense model on the aligned picture and on the frame; None
            without motion.
        equal_k: Smallest budget with which a plain model has no larger error; None if there is
            none, or without motion.
        ms: Median time of the frames after the second.
        mean_ms: Mean time of these frames, including those that are computed completely.
        ratio: ``mean_ms`` over that of the plain model with the same budget.
        whole: Number of later frames that were computed completely.
        misfits: Number of frames that did not fit.
    """

    move: str
    model: str
    k: int
    frame: int
    error: float
    alignment: float | None
    equal_k: int | None
    ms: float
    mean_ms: float
    ratio: float
    whole: int
    misfits: int


def moves() -> dict[str, Move]:
    """All movements by name."""
    found: dict[str, Move] = {"fixed": lambda t: (0.0, 0.0, 1.0)}
    for speed in SPEEDS:
        for name, (down, right) in DIRECTIONS.items():
            step = (speed * down, speed * right)
            found[f"pan {speed} {name}"] = lambda t, step=step: (t * step[0], t * step[1], 1.0)
    found["shaken"] = lambda t: (_shake(t, 0.0), _shake(t, 2.0), 1.0)
    found["zoomed"] = lambda t: (0.0, 0.0, ZOOM**t)
    return found


def _shake(t: int, phase: float) -> float:
    """Sum of waves of several frequencies, as of a hand; 0 at first."""
    waves = ((1.0, 0.31), (0.5, 0.83), (0.25, 1.9))
    now, start = (
        sum(size * math.sin(speed * at + phase * size) for size, speed in waves) for at in (t, 0)
    )
    return SHAKE * (now - start)


def frames_of(image: np.ndarray, move: Move, size: int, count: int) -> list[Tensor]:
    """Make frames (1, 3, size, size) of a still; shifts by whole pixels are not interpolated."""
    places = [move(t) for t in range(count)]
    room = 8 + math.ceil(max(max(abs(y), abs(x)) for y, x, _ in places))
    side = size + 2 * room
    still = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    middle, frames = side / 2 - 0.5, []
    for y, x, zoom in places:
        shift = [room + x, room + y]
        matrix = np.array(
            [
                [zoom, 0, middle * (1 - zoom) - shift[0]],
                [0, zoom, middle * (1 - zoom) - shift[1]],
            ]
        )
        shown = cv2.warpAffine(still, matrix, (size, size), flags=cv2.INTER_CUBIC)
        frame = torch.from_numpy(shown.astype(np.float32) / 127.5 - 1)
        frames.append(frame.permute(2, 0, 1)[None].contiguous())
    return frames


def build(size: int) -> nn.Module:
    """Build ViTDet-B with fixed random weights, including relative positions."""
    torch.manual_seed(0)
    return vitdet(img_size=size).eval().requires_grad_(False)


class Camera:
    """Runs a model on a video.

    Args:
        dense: The dense model; weights are shared.
        policy: Policy of the gates.
        follows: Whether the model follows the camera.
    """

    def __init__(self, dense: nn.Module, policy: object, follows: bool) -> None:
        self.dense, self.follows = dense, follows
        self.model = sharing_weights(dense)
        motion = Translation() if follows else None
        self.handle = apply_eventful(self.model, policy, motion=motion)
        self.seconds: list[float] = []
        self.whole = self.misfits = 0
        self._naive: NaiveScene | None = None
        self._view: Tensor | None = None

    def see(self, frame: Tensor) -> Tensor:
        """Compute the features of the next frame and measure the time."""
        start = time.perf_counter()
        (features,) = self.model(frame)
        self.seconds.append(time.perf_counter() - start)
        (info,) = self.handle.uncounted_frames
        self.whole += info.refreshed
        if self.follows:
            self.misfits += not info.camera.fits
            if info.first or info.refreshed:
                self._naive = NaiveScene(self.model.patch_size, frame.shape[-1])
            self._view = self._naive.see(frame, info.camera.offset, info.camera.fits)
        return features

    def expected(self, frame: Tensor) -> Tensor:
        """Features of the dense model on the picture processed last, mapped to the frame."""
        if not self.follows:
            return self.dense(frame)[0]
        offset = self.handle.uncounted_frames[0].camera.offset
        grid = tuple(side // self.model.patch_size for side in frame.shape[-2:])
        return aligned_vitdet(self.dense, grid, self._naive.first, offset)(self._view)[0]


def relative_error(given: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return float((given - expected).norm() / expected.norm())


def measure(
    name: str,
    frames: list[Tensor],
    dense: nn.Module,
    budgets: Sequence[int],
    at: Sequence[int],
    kinds: Sequence[str],
) -> Iterator[Row]:
    """Run the models on one movement, alternately on every frame."""
    cameras = {
        (kind, k): Camera(dense, KINDS[kind](k), kind != "plain") for k in budgets for kind in kinds
    }
    torch.manual_seed(0)
    for number, frame in enumerate(frames):
        order = list(cameras) if number % 2 else list(reversed(cameras))
        features = {key: cameras[key].see(frame) for key in order}
        if number not in at:
            continue
        on_frame = dense(frame)[0]
        expected: dict[bool, Tensor] = {False: on_frame}
        for camera in cameras.values():
            # The same for all models that follow the camera
            if camera.follows and True not in expected:
                expected[True] = camera.expected(frame)
        errors = {
            key: relative_error(features[key], expected[cameras[key].follows]) for key in cameras
        }
        alignment = relative_error(expected[True], on_frame) if True in expected else None
        for (kind, k), camera in cameras.items():
            times, others = (
                [1e3 * s for s in c.seconds[2:]] for c in (camera, cameras["plain", k])
            )
            equal = [b for b in budgets if errors["plain", b] <= errors[kind, k]]
            yield Row(
                name,
                kind,
                k,
                number,
                errors[kind, k],
                alignment if camera.follows else None,
                min(equal) if equal and camera.follows else None,
                median(times),
                mean(times),
                mean(times) / mean(others),
                camera.whole,
                camera.misfits,
            )
    for camera in cameras.values():
        camera.handle.reset()  # half a gigabyte each, which would be freed later


def line(row: Row) -> str:
    """Format a row."""
    alignment = "-" if row.alignment is None else f"{row.alignment:.3f}"
    return (
        f"{row.move:<14}{row.model:<8}{row.k:5d}{row.frame:6d}{row.error:9.4f}{alignment:>10}"
        f"{row.equal_k or '-':>9}{row.ms:8.0f}{row.mean_ms:8.0f}{row.ratio:7.2f}x{row.whole:6d}"
        f"{row.misfits:8d}"
    )


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the record if requested."""
    known = moves()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="a still")
    parser.add_argument(
        "--moves", nargs="+", metavar="MOVE", default=list(known), help="only these"
    )
    parser.add_argument("--no-random", action="store_true", help="leave out random tokens")
    parser.add_argument("--size", type=int, default=672, help="side of the frames, in pixels")
    parser.add_argument("--k", type=int, nargs="+", default=[256], help="budgets")
    parser.add_argument("--frames", type=int, default=8, help="frames of a move")
    parser.add_argument("--at", type=int, nargs="+", help="frames to compare (default: the last)")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    image = cv2.imread(args.image)
    if image is None:
        raise UserError(f"{args.image} cannot be read as a picture; give a photograph.")
    unknown = [move for move in args.moves if move not in known]
    if unknown:
        raise UserError(
            f"--moves {' '.join(map(repr, unknown))}: known are {', '.join(map(repr, known))}."
        )
    at = args.at or [args.frames - 1]
    if args.frames < 3 or not all(2 <= number < args.frames for number in at):
        raise UserError(
            f"--frames {args.frames} --at {' '.join(map(str, at))}: frames are compared from number"
            " 2 on, and below the number of frames."
        )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} pixels")
    print(
        f"{'move':<14}{'model':<8}{'k':>5}{'frame':>6}{'error':>9}{'alignment':>10}{'equal k':>9}"
        f"{'ms':>8}{'mean ms':>8}{'ratio':>8}{'whole':>6}{'misfits':>8}"
    )
    rows = []
    with torch.inference_mode():
        dense = build(args.size)
        kinds = [kind for kind in KINDS if not (args.no_random and kind == "random")]
        for name in args.moves:
            frames = frames_of(image, known[name], args.size, args.frames)
            for row in measure(name, frames, dense, args.k, at, kinds):
                rows.append(row)
                print(line(row), flush=True)
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
