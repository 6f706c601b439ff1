"""ToMe and Eventful on models of transformers, against these models with fused attention.

    python benchmarks/hosts.py data/videos/pool_340x256.mp4             # all, some minutes
    python benchmarks/hosts.py VIDEO --models vit clip                  # some of them
    python benchmarks/hosts.py VIDEO --quick                            # small ones
    python benchmarks/hosts.py VIDEO --record                           # keep the rows

Weights are random, and models are built from each family's default config; nothing is downloaded.
Frames are successive frames of the video. The host and the methods share weights and run
alternately in one process, frame by frame. ToMe merges as many tokens as leave about half of the
multiply-adds, Eventful recomputes an eighth of the tokens. SAM's encoder has the architecture of
ViTDet, so this package's ViTDet runs with its weights too, and the faster of the two is the dense
model. The table has the ratios of median times and of multiply-adds, and the error: the norm of the
difference of the last hidden states, over the norm of the host's minus their mean. It does not
measure the loss of a trained model.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel import TopK, apply_eventful, apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.core.tome.schedule import Schedule
from mmvitaccel.errors import one_sentence_errors, refuse_below
from mmvitaccel.extras import require
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights
from mmvitaccel.video.first_frames import first_frames


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        title: Name in the table.
        model: Class of the model in transformers, or in ``model_module``.
        config: Class of its config.
        size: Side of its input in pixels.
        r: Schedule of ToMe; None if ToMe is not timed here.
        k: Tokens that Eventful recomputes.
        options: Arguments of the config.
        model_module: Module of the class, if it is not public.
        ours: Builds this package's model with the weights of the host; None if there is none.
    """

    title: str
    model: str
    config: str
    size: int
    r: Schedule | None
    k: int
    options: Mapping[str, Any] = field(default_factory=dict)
    model_module: str = "transformers"
    ours: Callable[[nn.Module], nn.Module] | None = None


class SAMAsViTDet(nn.Module):
    """This package's ViTDet with the weights and the neck of a SAM vision encoder.

    Args:
        sam: The encoder of transformers.
    """

    _NAMES = (
        ("patch_embed.projection", "patch_embed.proj"),
        ("layers.", "blocks."),
        ("layer_norm", "norm"),
        ("mlp.lin", "mlp.fc"),
    )

    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        config = sam.config
        depth, whole = config.num_hidden_layers, config.global_attn_indexes
        self.backbone = ViTDet(
            img_size=config.image_size, patch_size=config.patch_size,
            embed_dim=config.hidden_size, depth=depth, num_heads=config.num_attention_heads,
            mlp_ratio=config.mlp_dim / config.hidden_size, window_size=config.window_size,
            window_block_indexes=[n for n in range(depth) if n not in whole],
            pretrain_img_size=config.image_size,
        )  # fmt: skip
        state = {"pos_embed": nn.functional.pad(sam.pos_embed.flatten(1, 2), (0, 0, 1, 0))}
        for name, value in sam.state_dict().items():
            if name.startswith(("patch_embed.", "layers.")):
                for theirs, own in self._NAMES:
                    name = name.replace(theirs, own)
                state[name] = value
        self.backbone.load_state_dict(state)
        self.neck = sam.neck

    def forward(self, x: Tensor) -> SimpleNamespace:
        """Compute ``last_hidden_state`` (B, channels, H, W) of pictures (B, 3, S, S)."""
        (features,) = self.backbone(x)
        return SimpleNamespace(last_hidden_state=self.neck(features.permute(0, 2, 3, 1)))


_SAM = "transformers.models.sam.modeling_sam"
# With the default of 1e-10, the output does not depend on the picture
_SAM_WEIGHTS = dict(initializer_range=0.02)
_TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=8)
CASES = {
    "vit": Case("ViT-B/16", "ViTModel", "ViTConfig", 224, 16, 25),
    "dinov2": Case("DINOv2-B/14", "Dinov2Model", "Dinov2Config", 224, 21, 32),
    "dinov3": Case("DINOv3 ViT-S/16", "DINOv3ViTModel", "DINOv3ViTConfig", 224, 16, 25),
    "clip": Case(
        "CLIP ViT-B/16",
        "CLIPVisionModel",
        "CLIPVisionConfig",
        224,
        16,
        25,
        dict(patch_size=16),
    ),
    "siglip": Case("SigLIP-B/16", "SiglipVisionModel", "SiglipVisionConfig", 224, 16, 25),
    "sam": Case(
        "SAM ViT-B",
        "SamVisionEncoder",
        "SamVisionConfig",
        1024,
        None,
        512,
        _SAM_WEIGHTS,
        _SAM,
        SAMAsViTDet,
    ),
}
QUICK_CASES = {
    "vit": Case(
        "ViT, 2 layers",
        "ViTModel",
        "ViTConfig",
        64,
        8,
        8,
        dict(_TINY, image_size=64, intermediate_size=64),
    ),
    "sam": Case(
        "SAM, 2 layers",
        "SamVisionEncoder",
        "SamVisionConfig",
        64,
        None,
        8,
        dict(
            _TINY,
            **_SAM_WEIGHTS,
            image_size=64,
            mlp_dim=64,
            window_size=3,
            global_attn_indexes=[1],
        ),
        _SAM,
        SAMAsViTDet,
    ),
}


@dataclass(frozen=True)
class Result:
    """One row of the table; times are medians, in seconds per frame.

    Attributes:
        model: Title of the case.
        method: ``ToMe``, ``Eventful``, or a dense model: ``host`` or ``ours``.
        setting: r or k; 0 for dense models.
        tokens: Patches of a frame.
        dense_seconds: Time of the faster dense model.
        seconds: Time of the host with the method.
        speedup: Ratio of these medians.
        macs_ratio: Ratio of multiply-adds.
        reached: ``speedup`` over ``macs_ratio``.
        error: Relative error of the last hidden state.
        rounds: Number of timings.
    """

    model: str
    method: str
    setting: int
    tokens: int
    dense_seconds: float
    seconds: float
    speedup: float
    macs_ratio: float
    reached: float
    error: float
    rounds: int


def build(case: Case) -> nn.Module:
    """Build the host with fused attention and random weights."""
    require("hosts", "transformers")
    from importlib import import_module

    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**case.options)
    cls = getattr(import_module(case.model_module), case.model)
    return cls._from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)


def last_state(model: nn.Module, x: Tensor) -> Tensor:
    """Return the last hidden state of a frame."""
    return model(x).last_hidden_state


def counted(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Return the last hidden state of a frame and its multiply-adds."""
    found: list[Tensor] = []
    hook = model.register_forward_hook(
        lambda module, args, out: found.append(out.last_hidden_state)
    )
    macs = count_macs(model, x).total
    hook.remove()
    return found[0], macs


def error_of(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference, over that of the expected states minus their mean over positions."""
    places = (2, 3) if expected.dim() == 4 else 1
    spread = expected - expected.mean(dim=places, keepdim=True)
    return ((found - expected).norm() / spread.norm()).item()


@torch.inference_mode()
def measure(case: Case, frames: Sequence[Tensor], rounds: int) -> list[Result]:
    """Time one host alternately with the methods.

    Args:
        case: The host.
        frames: ``rounds + 3`` frames: two for warm-up, the timed ones, and one to count and
            compare.
        rounds: Number of timings.
    """
    dense = build(case)
    settings: dict[str, int] = {}
    models = {"host": dense}
    if case.ours is not None:
        models["ours"] = case.ours(dense).eval().requires_grad_(False)
    if case.r is not None:
        models["ToMe"], settings["ToMe"] = sharing_weights(dense), case.r
        apply_tome(models["ToMe"], case.r)
    models["Eventful"], settings["Eventful"] = sharing_weights(dense), case.k
    apply_eventful(models["Eventful"], TopK(case.k))
    given = {name: iter(frames) for name in models}

    def step(name: str, model: nn.Module) -> Callable[[], Tensor]:
        return lambda: last_state(model, next(given[name]))

    runs = {name: step(name, model) for name, model in models.items()}
    seconds = alternate(runs, rounds, warmup=2)
    last = frames[rounds + 2]
    expected, dense_macs = counted(dense, last)
    computes_all = [name for name in models if name not in settings]
    dense_seconds = min(median(seconds[name]) for name in computes_all)
    results = []
    for name, model in models.items():
        if computes_all == [name]:
            continue
        found, macs = counted(model, last)
        speedup, allowed = dense_seconds / median(seconds[name]), dense_macs / macs
        results.append(
            Result(
                model=f"{case.title} at {case.size}",
                method=name,
                setting=settings.get(name, 0),
                tokens=(case.size // dense.config.patch_size) ** 2,
                dense_seconds=dense_seconds,
                seconds=median(seconds[name]),
                speedup=speedup,
                macs_ratio=allowed,
                reached=speedup / allowed,
                error=error_of(found, expected),
                rounds=rounds,
            )
        )
    return results


def row_text(row: Result) -> str:
    """Format a row."""
    return (
        f"{row.model:<24}{row.method:<9}{row.setting:>5}{row.tokens:>7}{row.dense_seconds:>9.3f}"
        f"{row.seconds:>9.3f}{row.speedup:>8.2f}x{row.macs_ratio:>8.2f}x{row.reached:>8.0%}"
        f"{row.error:>8.3f}"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a video, of which the first frames are used")
    parser.add_argument("--quick", action="store_true", help="small models, a few seconds")
    parser.add_argument("--models", nargs="+", choices=list(CASES), help="only these")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each model")
    add_record_option(parser)
    args = parser.parse_args(argv)
    refuse_below(args, 1, "rounds")
    return args


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the record if requested."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    cases = QUICK_CASES if args.quick else CASES
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    head = "model                   method   r or k tokens  dense s        s speedup  allowed"
    print(f"{head} reached   error")
    results = []
    for name in [name for name in args.models or cases if name in cases]:
        frames = first_frames(args.video, cases[name].size, args.rounds + 3)
        for row in measure(cases[name], frames, args.rounds):
            results.append(row)
            print(row_text(row), flush=True)
    recording.save([asdict(row) for row in results])


if __name__ == "__main__":
    main()
