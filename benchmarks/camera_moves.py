"""How the cameras of real and generated videos are followed, and which frames do not fit.

    python benchmarks/camera_moves.py data/videos data/davis
    python benchmarks/camera_moves.py data/davis --size 448 --frames 20
    python benchmarks/camera_moves.py data/videos data/davis --record

The folders contain videos: files, or folders with pictures in ``frames``. ``Translation`` follows
the first frames of each video as squares of ``--size`` pixels. It also follows videos generated
from the first frame of each: pans, a shake, noise, flicker, zooms, rotations, and a plane that
recedes to a horizon.

The reference is OpenCV's optical flow, which is computed in another way. ``near`` is the share of
the fitting frames in which the estimate is within one pixel, or a fifth of the movement, of the
largest part of the flow; ``plain`` is the same share for a camera assumed to stand still.
``unlike`` counts the frames in which too little of the flow shares a shift for a frame to fit.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from mmvitaccel import Translation
from mmvitaccel.core.eventful.motion.blocks import CLOSE, SHARE, SIDE
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.clips import first_frames_of

STEPS = 6  # frames in the movement of a still
EVERY = 8  # pixels between the points of the flow
ROOM = 120  # margin of a still around a frame in pixels, for movements

Move = Callable[[int], np.ndarray]  # maps a frame's number to the 2 x 3 matrix of cv2.warpAffine


@dataclass(frozen=True)
class Row:
    """A video, or one movement of all stills.

    Attributes:
        what: Name.
        frames: Number of frames.
        misfits: Number of frames that do not fit.
        unlike: Number of frames in which no shift explains most of the optical flow.
        near: Share of the fitting frames in which the estimate agrees with the flow.
        plain: Share of the same frames in which a camera at rest agrees with the flow.
        moved: Median movement of the camera according to the flow, in pixels.
    """

    what: str
    frames: int
    misfits: int
    unlike: int
    near: float | None
    plain: float | None
    moved: float


@dataclass(frozen=True)
class Step:
    """Two successive frames.

    Attributes:
        moved: Estimated movement (down, right) in pixels.
        fits: Whether the frame fits.
        flow: Movement (down, right) of the camera in pixels, according to the optical flow.
        share: Share of the flow that agrees with ``flow``.
    """

    moved: np.ndarray
    fits: bool
    flow: np.ndarray
    share: float


def largest_part(flow: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Return the shift (down, right) of the largest part of a flow (n, 2), and its share."""
    reach = np.maximum(CLOSE * size / SIDE, SHARE * np.linalg.norm(flow, axis=1))
    close = np.linalg.norm(flow[:, None] - flow, axis=2) <= reach[:, None]
    best = close.sum(1).argmax()
    return flow[close[best]].mean(0), float(close[best].mean())


def steps(frames: Sequence[np.ndarray]) -> Iterator[Step]:
    """Follow a video of squares (size, size, 3), RGB."""
    motion, size = Translation(), len(frames[0])
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    inputs = [torch.from_numpy(f).permute(2, 0, 1)[None].float() / 127.5 - 1 for f in frames]
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    track, before = motion.start(inputs[0]), np.zeros(2)
    for picture, then, now in zip(inputs[1:], greys, greys[1:]):
        found = motion.follow(track, picture)
        flow = finder.calc(then, now, None)[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY]
        # OpenCV gives (right, down), and the movement of the picture, not of the camera
        shift, share = largest_part(-flow.reshape(-1, 2)[:, ::-1], size)
        yield Step(np.array(found.place) - before, found.fits, shift, share)
        before = np.array(found.place)


def row_of(what: str, found: Sequence[Step]) -> Row:
    """Summarise the frames of a video or movement."""
    fitting = [step for step in found if step.fits]
    near, plain = [], []
    for step in fitting:
        reach = max(1.0, SHARE * np.linalg.norm(step.flow))
        near.append(np.linalg.norm(step.moved - step.flow) <= reach)
        plain.append(np.linalg.norm(step.flow) <= reach)
    least = Translation().smallest_share
    return Row(
        what,
        len(found),
        len(found) - len(fitting),
        sum(step.share < least for step in found),
        float(np.mean(near)) if near else None,
        float(np.mean(plain)) if plain else None,
        float(np.median([np.linalg.norm(step.flow) for step in found])),
    )


def moves(size: int) -> dict[str, Move]:
    """Movements of a still around the centre of a frame, by name."""

    def about(
        zoom: float = 1.0, degrees: float = 0.0, y: float = 0.0, x: float = 0.0
    ) -> np.ndarray:
        middle = ROOM + (size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), degrees, zoom)
        matrix[:, 2] -= (ROOM + x, ROOM + y)
        return matrix

    def shaken(t: int, phase: float) -> float:
        return 4 * math.sin(0.9 * t + phase) + 1.5 * math.sin(2.3 * t) - 4 * math.sin(phase)

    found: dict[str, Move] = {
        f"pan by {p}": lambda t, p=p: about(y=p * t, x=p * t) for p in (0.5, 1, 3, 8, 16)
    }
    found["shake"] = lambda t: about(y=shaken(t, 0.0), x=shaken(t, 1.0))
    for zoom in (1.002, 1.005, 1.01, 1.02, 1.05):
        found[f"zoom by {zoom}"] = lambda t, zoom=zoom: about(zoom**t)
    for degrees in (0.2, 0.5, 1, 3):
        found[f"turn by {degrees}"] = lambda t, degrees=degrees: about(degrees=degrees * t)
    return found


def still_videos(image: np.ndarray, size: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield names and frames of the videos generated from a still (height, width, 3)."""
    side = size + 2 * ROOM
    still = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    for name, move in moves(size).items():
        yield (
            name,
            [
                cv2.warpAffine(still, move(t), (size, size), flags=cv2.INTER_CUBIC)
                for t in range(STEPS)
            ],
        )
    frame, random = still[ROOM : ROOM + size, ROOM : ROOM + size], np.random.default_rng(0)
    for sigma in (10, 25):
        noise = random.normal(scale=sigma, size=(STEPS, *frame.shape))
        yield f"noise of {sigma} of 255", list((frame + noise).clip(0, 255).astype(np.uint8))
    yield (
        "brightness times 0.8",
        [(frame * (0.8 if t % 2 else 1)).astype(np.uint8) for t in range(STEPS)],
    )
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for pixels in (4, 12):
        yield (
            f"plane, by 0 to {pixels}",
            [
                cv2.remap(still, ROOM + x + pixels * t * y / size, ROOM + y, cv2.INTER_CUBIC)
                for t in range(STEPS)
            ],
        )


def measure(videos: dict[str, list[np.ndarray]], size: int) -> Iterator[Row]:
    """Measure every video, then every movement of their first frames."""
    kinds: dict[str, list[Step]] = {}
    for name, frames in videos.items():
        squares = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in frames]
        yield row_of(name, list(steps(squares)))
        for kind, made in still_videos(frames[0], size):
            kinds.setdefault(kind, []).extend(steps(made))
    for kind, found in kinds.items():
        yield row_of(kind, found)


def line(row: Row) -> str:
    """Format a row."""
    near, plain = ("-" if v is None else f"{100 * v:.0f} %" for v in (row.near, row.plain))
    return (
        f"{row.what:<24}{row.frames:7d}{row.misfits:9d}{row.unlike:8d}{near:>8}{plain:>8}"
        f"{row.moved:8.1f}"
    )


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the record if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, nargs="+", help="folders of videos")
    parser.add_argument("--size", type=int, default=224, help="side of the frames, in pixels")
    parser.add_argument("--frames", type=int, default=40, help="first frames of each video")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording, rows = Recording(args.record, __file__, argv), []
    videos = first_frames_of(args.videos, args.frames)
    if not videos or min(map(len, videos.values())) < 2:
        raise UserError(
            f"{' and '.join(map(str, args.videos))} with --frames {args.frames} hold no videos of"
            " at least two frames."
        )
    print(
        f"{'what':<24}{'frames':>7}{'misfits':>9}{'unlike':>8}{'near':>8}{'plain':>8}{'moved':>8}"
    )
    with torch.inference_mode():
        for row in measure(videos, args.size):
            rows.append(row)
            print(line(row), flush=True)
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
