"""Draw images, train a detector on the CPU, then test, fold, count and time it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.demo.image_detector import Demo, verdict
from mmvitaccel.errors import ArgumentParser, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / "configs" / "demo" / "retinanet_efficientvit_synthetic.py"
WORK_DIR = Path("work_dirs") / "demo"


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run every stage; exit status 1 if the detector did not learn."""
    parser = ArgumentParser(description=__doc__)
    add_record_option(parser)
    recording = Recording(parser.parse_args(argv).record, __file__, argv)
    demo = Demo(TOOLS, CONFIG, WORK_DIR)
    failure = verdict(demo.run())
    recording.save(demo.rows())
    if failure:
        print(failure, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
