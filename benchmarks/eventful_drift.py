"""Deviation of exact attention from dense attention over the same gated tokens, in long runs.

    python benchmarks/eventful_drift.py VIDEO [VIDEO ...] --frames 1000
    python benchmarks/eventful_drift.py VIDEO [VIDEO ...] --width 768 --depth 3 --dtype bfloat16
    python benchmarks/eventful_drift.py VIDEO --record    # keep the rows in benchmarks/results

The frames of the videos, played forwards and backwards, pass through a ViTDet with random weights;
between two videos is a cut that is not announced to the model. After every frame, the output of the
running sums in each global block is compared with dense attention in single precision over the same
gated queries, keys and values: the largest difference relative to the largest value.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from mmvitaccel import TopK, ViTDet, apply_eventful
from mmvitaccel.core.eventful.modes.global_attention import GlobalAttention
from mmvitaccel.core.eventful.modes.mode import QKV, TokenwiseAttention
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.video_reader import open_video

HEAD_WIDTH = 64  # channels of a head, as in ViTDet-B


def to_and_fro(videos: list[str], size: int) -> Iterator[Tensor]:
    """Yield frames (1, 3, size, size) of all videos in order, then backwards, repeatedly."""
    frames = [prepare(frame.image, size) for video in videos for frame in open_video(video)]
    while True:
        yield from frames
        yield from reversed(frames)


def prepare(frame: np.ndarray, size: int) -> Tensor:
    """Convert (H, W, 3) uint8 RGB to (1, 3, size, size), with values of about -2 to 2."""
    x = torch.from_numpy(cv2.resize(frame, (size, size))).float() / 64 - 2
    return x.permute(2, 0, 1)[None].contiguous()


def make_model(size: int, width: int, depth: int) -> ViTDet:
    """Make a ViTDet with random weights, in which every third block is global, as in ViTDet-B.

    Queries and keys are larger than at the start of training, so that attention is not uniform.
    """
    windowed = tuple(index for index in range(depth) if index % 3 != 2)
    model = ViTDet(
        size, embed_dim=width, num_heads=width // HEAD_WIDTH, depth=depth,
        window_block_indexes=windowed,
    ).eval()  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("qkv.weight"):
            parameter.data.normal_(std=1.5 / width**0.5)
        elif "rel_pos" in name:
            parameter.data.normal_(std=0.1)
    return model


def deviation(attention: GlobalAttention) -> float:
    """Largest difference between the running sums and dense attention, over the largest value."""
    sums = attention.memory
    qkv = QKV(*(t.float() for t in attention.qkv))
    dense, _ = TokenwiseAttention().start(qkv, attention.logits)
    kept = sums.numerator / sums.denominator.unsqueeze(-1)
    return float((kept - dense).abs().max() / dense.abs().max())


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", help="files, or folders of numbered pictures")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", type=int, default=336, help="side of the frames, in pixels")
    parser.add_argument("--k", type=int, default=64, help="tokens that pass the gates")
    parser.add_argument("--width", type=int, default=384, help="channels; ViTDet-B has 768")
    parser.add_argument("--depth", type=int, default=6, help="blocks, every third of them global")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    add_record_option(parser)
    args = parser.parse_args(argv)
    for name, unit in (("width", HEAD_WIDTH), ("depth", 3)):
        value = getattr(args, name)
        if value < unit or value % unit:
            raise UserError(f"--{name} {value}: give a multiple of {unit}.")
    return args


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Run, and print the deviation after 1, 2, 5, 10, 20, 50, ... frames."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    model = make_model(args.size, args.width, args.depth).to(dtype)
    handle = apply_eventful(model, TopK(args.k))
    frames, largest, shown = to_and_fro(args.videos, args.size), 0.0, {1, 2, 5}
    rows = []
    print("frame  deviation  largest so far")
    with torch.inference_mode():
        for number, frame in zip(range(1, args.frames + 1), frames):
            model(frame.to(dtype))
            blocks = handle.remembered(handle.streams[0]).values()
            kept = [block.attention for block in blocks]
            now = max(deviation(one) for one in kept if isinstance(one, GlobalAttention))
            largest = max(largest, now)
            if number in shown or number == args.frames:
                print(f"{number:5d}{now:11.1e}{largest:16.1e}", flush=True)
                of_run = dict(width=args.width, dtype=args.dtype)
                rows.append(dict(of_run, frame=number, deviation=now, largest=largest))
                shown.add(10 * number)
    recording.save(rows)


if __name__ == "__main__":
    main()
