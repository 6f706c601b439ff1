"""A stream through a recognizer, as in tools/stream_recognize.py, with random weights.

    python benchmarks/stream.py VIDEO CONFIG --max-steps 24
    python benchmarks/stream.py VIDEO CONFIG --record   # keep the rows in benchmarks/results

Each step is encoded alternately by the config's model and by the same model without a method; times
are medians over the steps after the first. A third model counts the multiply-adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import torch

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.errors import UserError, one_sentence_errors, refuse_below
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.video.clip_steps import ClipSettings
from mmvitaccel.video.stream_recognition import StepResult
from mmvitaccel.video.stream_report import recognise
from mmvitaccel.video_reader import open_video


def summarise(results: Sequence[StepResult]) -> list[dict[str, Any]]:
    """Make a row for the first step and one for the later ones."""
    rows = []
    for name, steps in (("first", results[:1]), ("later", results[1:])):
        ms, dense = median(step.ms for step in steps), [step.dense_ms for step in steps]
        dense_ms = None if None in dense else median(dense)
        rows.append(
            dict(
                step=name,
                steps=len(steps),
                ms=ms,
                gmacs=mean(step.macs for step in steps) / 1e9,
                dense_ms=dense_ms,
                dense_over_this=dense_ms / ms if dense_ms else None,
            )
        )
    return rows


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Process the stream, and print its steps and a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("config", help="config of a recognizer with ViViT")
    parser.add_argument("--max-steps", type=int, default=24, help="number of steps, at least 2")
    add_record_option(parser)
    args = parser.parse_args(argv)
    refuse_below(args, 2, "max-steps")
    recording = Recording(args.record, __file__, argv)
    cfg = load_config(args.config, {})
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    report = recognise(
        model, open_video(args.video), ClipSettings.of(cfg), max_steps=args.max_steps
    )
    if len(report.results) < 2:
        raise UserError(f"{args.video} gives one step only; give a longer video.")
    recording.save(summarise(report.results))


if __name__ == "__main__":
    main()
