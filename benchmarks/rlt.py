"""Run-length tokenization on a clip of a fixed camera: throughput against the share dropped.

    python benchmarks/rlt.py VIDEO                      # ViViT-B, a minute on two cores
    python benchmarks/rlt.py VIDEO --model videomae     # of transformers: the extra hosts
    python benchmarks/rlt.py VIDEO --thresholds 0 0.1 --r 8
    python benchmarks/rlt.py VIDEO --quick              # a small model: that everything runs
    python benchmarks/rlt.py VIDEO --record

The clip is two seconds of the video, 32 frames, of which VideoMAE takes every other one. Variants
share the model's random weights, which do not affect the cost, and run alternately in one process.
The error is the relative L2 difference of the output to that of the dense model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor, nn

from mmvitaccel import apply_rlt, apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing import models as builders
from mmvitaccel.testing.clips import FRAMES, read_clips


@dataclass(frozen=True)
class Row:
    """One variant of the model.

    Attributes:
        model: Name of the model.
        variant: Method and its setting.
        dropped: Share of the tubelets that RLT dropped.
        macs_ratio: Multiply-adds of the dense model over those of the variant.
        ms: Median milliseconds of the clip.
        speedup: Time of the dense model over ``ms``.
        error: Relative difference of the output to that of the dense model.
    """

    model: str
    variant: str
    dropped: float
    macs_ratio: float
    ms: float
    speedup: float
    error: float


class Features(nn.Module):
    """A model whose output is a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of clips."""
        out = self.model(x)
        return out if isinstance(out, Tensor) else out.last_hidden_state


def vivit(quick: bool) -> tuple[str, nn.Module, Callable[[Tensor], Tensor]]:
    """ViViT-B, which takes every frame."""
    size = dict(spatial_depth=1, embed_dim=96, num_heads=2) if quick else dict(arch="base")
    return "ViViT-B, 32 frames", builders.vivit(**size), lambda clips: clips


def videomae(quick: bool) -> tuple[str, nn.Module, Callable[[Tensor], Tensor]]:
    """VideoMAE of transformers, which takes every other frame, as (B, frames, channels, H, W)."""
    require("hosts", "transformers")
    from transformers import VideoMAEConfig, VideoMAEModel

    size = dict(hidden_size=96, num_hidden_layers=1, num_attention_heads=2, intermediate_size=96)
    config = VideoMAEConfig(num_frames=FRAMES // 2, **(size if quick else {}))
    model = VideoMAEModel(config)
    return "VideoMAE ViT-B, 16 frames", model, lambda clips: clips[:, :, ::2].transpose(1, 2)


MODELS = {"vivit": vivit, "videomae": videomae}


def measure(
    title: str, dense: nn.Module, x: Tensor, thresholds: list[float], r: int, rounds: int
) -> list[Row]:
    """Count, time and compare the model with RLT at each threshold, and with ToMe.

    ToMe runs alone and together with the last threshold; r=0 omits both rows.
    """
    wanted = [("dense", None, 0), *((f"RLT {t:g}", t, 0) for t in thresholds)]
    if r:
        both = f"RLT {thresholds[-1]:g} and ToMe r={r}"
        wanted += [(f"ToMe r={r}", None, r), (both, thresholds[-1], r)]
    made, handles = {}, {}
    for name, threshold, merged in wanted:
        made[name] = Features(builders.sharing_weights(dense))
        if merged:
            apply_tome(made[name], merged)
        if threshold is not None:
            handles[name] = apply_rlt(made[name], threshold)
    with torch.no_grad():
        outs = {name: model(x) for name, model in made.items()}
        runs = {name: (lambda m=model: m(x)) for name, model in made.items()}
        seconds = {name: median(times) for name, times in alternate(runs, rounds, 0).items()}
    macs = {name: count_macs(model, x).total for name, model in made.items()}
    whole = outs["dense"]
    return [
        Row(
            title,
            name,
            handles[name].info.dropped if name in handles else 0.0,
            macs["dense"] / macs[name],
            1e3 * seconds[name],
            seconds["dense"] / seconds[name],
            float((outs[name] - whole).norm() / whole.norm()),
        )
        for name in made
    ]


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure one model on the clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--model", choices=list(MODELS), default="vivit")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=[0, 0.02, 0.05, 0.1], metavar="T"
    )
    parser.add_argument("--r", type=int, default=8, help="r of ToMe; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--rounds", type=int, default=2)
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    title, model, prepare = MODELS[args.model](args.quick)
    x = prepare(read_clips(args.video, 1)).contiguous()
    model.eval().requires_grad_(False)
    rows = measure(title, model, x, args.thresholds, args.r, args.rounds)
    print(f"{args.video}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'variant':<24}{'dropped':>9}{'macs':>8}{'ms':>9}{'time':>8}{'error':>8}")
    for row in rows:
        print(
            f"{row.variant:<24}{row.dropped:>9.1%}{row.macs_ratio:>7.2f}x{row.ms:>9.0f}"
            f"{row.speedup:>7.2f}x{row.error:>8.3f}"
        )
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
