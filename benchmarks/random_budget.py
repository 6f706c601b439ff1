"""What training with random budgets gains: the small VID detector, trained with them and without.

    python benchmarks/random_budget.py                       # three seeds: hours on two cores
    python benchmarks/random_budget.py --seeds 0 --epochs 2
    python benchmarks/random_budget.py --record

Draws the small set of videos and images, trains the detector of ``configs/eventful/tiny`` for each
seed as it is, on shuffled pictures, and with ``RandomBudgetHook`` on clips of two frames, and tests
all on every frame of the held-out videos: dense, and with k tokens let through. An image without
neighbours is a clip of itself twice; the training on shuffled pictures takes it twice as well, so
that both take the same number of steps on the same pictures. Trainings that are in the work
directory are not done again, and one that was interrupted is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from mmengine.config import Config

import mmvitaccel  # noqa: F401  (applies compatibility patches before mmdet is imported)
from mmvitaccel.analysis.tradeoff import METHODS, Point, draw_generated, measure, train
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.runner.config import load_config

TINY = Path(__file__).parents[1] / "configs/eventful/tiny"
DENSE = "faster-rcnn_vitdet-tiny_vid-128_dense"
TRAININGS = {"dense": DENSE, "random budgets": f"{DENSE}_random-budget"}


@dataclass(frozen=True)
class Row:
    """One training at one budget.

    Attributes:
        training: A key of ``TRAININGS``.
        seed: Of the training.
        epochs: Of the training.
        method: ``dense`` or what Eventful was given in the test.
        k: Tokens that each gate lets through; None for dense.
        map50: On the held-out frames, in percent.
        gmacs: 1e9 multiply-adds of a frame.
    """

    training: str
    seed: int
    epochs: int
    method: str
    k: int | None
    map50: float
    gmacs: float


def configs_of(options: dict[str, object]) -> dict[str, Config]:
    """The config of each training; each takes the same pictures in the same number of steps."""
    cfgs = {
        training: load_config(str(TINY / f"{name}.py"), options, reads=("epochs",))
        for training, name in TRAININGS.items()
    }
    dense, clips = cfgs.values()
    loader = dense.train_dataloader
    videos, images = loader.dataset.datasets
    repeated = dict(type="RepeatDataset", times=clips.frames, dataset=images)
    loader.dataset.datasets = [videos, repeated]
    loader.drop_last = clips.train_dataloader.drop_last
    return cfgs


def measure_seed(
    seed: int, epochs: int | None, budgets: Sequence[int], method: str, work_dir: Path
) -> list[Row]:
    """Train with one seed in both ways, and test."""
    options: dict[str, object] = {"randomness.seed": seed}
    options |= {} if epochs is None else {"epochs": epochs}
    rows = []
    for training, cfg in configs_of(options).items():
        draw_generated(cfg, _report_drawing)
        place = work_dir / f"{cfg.epochs}_epochs_seed_{seed}" / training.replace(" ", "_")
        checkpoint = train(cfg, place / "train")

        def report(point: Point, training: str = training, epochs: int = cfg.epochs) -> None:
            rows.append(
                Row(training, seed, epochs, point.method, point.k, point.map50, point.gmacs)
            )
            print(line(rows[-1]), flush=True)

        measure(cfg, checkpoint, [method], budgets, place / "tests", report)
    return rows


def means(rows: Sequence[Row]) -> list[str]:
    """The mean over seeds of each training at each budget, a line each."""
    kinds = dict.fromkeys((row.training, row.method, row.k) for row in rows)
    lines = []
    for kind in kinds:
        own = [row.map50 for row in rows if (row.training, row.method, row.k) == kind]
        lines.append(
            f"{kind[0]:<16}{kind[1]:<12}{kind[2] or '-':>5}{mean(own):9.2f}  of {len(own)} seeds"
        )
    return lines


def line(row: Row) -> str:
    """A row as it is printed."""
    return (
        f"{row.training:<16}seed {row.seed}, {row.epochs} epochs  {row.method:<12}{row.k or '-':>5}"
        f"{row.map50:9.2f}{row.gmacs:9.4f} G"
    )


def _report_drawing(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{what}: {total}", flush=True)


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Draw, train, test, and write the record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of a training (default: the config's)")
    parser.add_argument("--k", type=int, nargs="+", default=[64, 32, 16])
    parser.add_argument("--method", choices=list(METHODS), default="token-wise")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/random_budget"))
    add_record_option(parser)
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs {args.epochs}: a training has one at least.")
    recording, rows = Recording(args.record, __file__, argv), []
    for seed in args.seeds:
        rows += measure_seed(seed, args.epochs, args.k, args.method, args.work_dir)
    print("\n".join(means(rows)))
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
