"""Show in the browser what a budget does to a detector on a video.

    python -m mmvitaccel.app                              # the detector of `make demo-video`
    python -m mmvitaccel.app --model CONFIG CHECKPOINT --clip clip.mp4
    python -m mmvitaccel.app --host 0.0.0.0 --port 8080   # for other machines too

The page is served to this machine only, unless --host is given; anyone who can reach it can use it.
It needs the extras `app` and `video`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mmvitaccel.app.clips import draw_clips, given_clips
from mmvitaccel.app.models import checked_k, given_models, own_model
from mmvitaccel.app.page import Page
from mmvitaccel.app.player import Player
from mmvitaccel.app.server import address_of, application, listen, serve
from mmvitaccel.app.session import Sessions
from mmvitaccel.errors import ArgumentParser, UserError, one_sentence_errors
from mmvitaccel.extras import require

_LOCAL = "127.0.0.1"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        prog="python -m mmvitaccel.app",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        nargs=2,
        action="append",
        default=[],
        metavar=("CONFIG", "CHECKPOINT"),
        help="a detector, in place of the small one; may be repeated",
    )
    parser.add_argument(
        "--k", type=int, help="tokens that pass a gate, for a --model without Eventful"
    )
    parser.add_argument(
        "--clip",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a video that all sessions can choose; may be repeated",
    )
    parser.add_argument("--host", default=_LOCAL, help=f"address to listen on; default: {_LOCAL}")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0: any free port")
    parser.add_argument(
        "--most-upload",
        type=float,
        default=200,
        metavar="MIB",
        help="largest clip that users may upload; default: 200",
    )
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Check the arguments, draw the clips, and serve the page until Ctrl-C."""
    args = parse_args(argv)
    require("app", "gradio")
    require("video", "av", "supervision")
    if not 0 < args.most_upload < math.inf:
        raise UserError(f"--most-upload {args.most_upload:g}: give a finite number of MiB above 0.")
    given = given_clips(args.clip)
    k = checked_k(args.k, args.model)
    with listen(args.host, args.port) as listening, TemporaryDirectory() as folder:
        models, said = (given_models(args.model, k), "") if args.model else own_model()
        print("drawing two clips ...", flush=True)
        clips = given | draw_clips(Path(folder))
        sessions = Sessions(Path(folder, "sessions"))
        page = Page(Player(models), sessions, clips, said)
        app = application(page, Path(folder), int(args.most_upload * 2**20))
        print(f"{address_of(listening)} until Ctrl-C", flush=True)
        if said:
            print(said, flush=True)
        serve(app, listening)
        sessions.close_all()


if __name__ == "__main__":
    main()
