"""Options that the tools share which run an eventful detector on videos."""

from __future__ import annotations

import argparse

from mmvitaccel.video_demo.demo import LEAST_SCORE


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--bounds``, ``--k``, ``--track``, ``--score`` and ``--fps``."""
    parser.add_argument(
        "--bounds", type=int, nargs=2, metavar=("LOW", "HIGH"), help="range of k under a budget"
    )
    parser.add_argument(
        "--k", type=int, help="tokens that pass a gate, for a config without Eventful"
    )
    parser.add_argument("--track", action="store_true", help="track objects with ByteTracker")
    parser.add_argument(
        "--score", type=float, default=LEAST_SCORE, help="least score of a detection"
    )
    parser.add_argument(
        "--fps", type=float, help="frame rate of numbered pictures, or in place of a file's own"
    )
