"""Draw videos, train a small detector on the CPU, and run it dense and eventful side by side.

    python tools/demo_video.py     # made for under 20 minutes on two idle cores

Results are kept in work_dirs/demo_video and reused; an interrupted training is resumed. It needs
the extra `video`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.demo.video_detector import Demo, verdict
from mmvitaccel.errors import ArgumentParser, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.whole_files import check_folder

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "demo"
NAMES = ("small_vid-160", "small_vid-320", "small_vid-320_top200")
WORK_DIR = Path("work_dirs") / "demo_video"
CONFIGS = tuple(FOLDER / f"faster-rcnn_vitdet-{name}.py" for name in NAMES)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run every stage; exit status 1 if the detector did not learn."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_record_option(parser)
    args = parser.parse_args(argv)
    require("video", "av", "supervision")
    check_folder(WORK_DIR, 0, "the demonstration")
    recording = Recording(args.record, __file__, argv)
    figures = Demo(CONFIGS, WORK_DIR).run()
    recording.save([asdict(row) for row in figures])
    failure = verdict(figures)
    if failure:
        print(failure, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
