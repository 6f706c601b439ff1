"""Gain of training with random budgets: the small VID detector, trained with and without them.

    python benchmarks/random_budget.py                       # three seeds: hours on two cores
    python benchmarks/random_budget.py --seeds 0 --epochs 2
    python benchmarks/random_budget.py --record

Generates the small set of videos and images. For each seed, trains the detector of
``configs/eventful/tiny`` on shuffled pictures, and with ``RandomBudgetHook`` on clips of two
frames. Tests both on every frame of the held-out videos, dense and with k tokens per gate. An image
without neighbouring frames becomes a clip of two copies; the training on shuffled pictures uses it
twice too, so both take the same number of steps on the same pictures. Finished trainings in the
work directory are reused, and an interrupted one is resumed.
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
    """One training, tested with one budget.

    Attributes:
        training: A key of ``TRAININGS``.
        seed: Seed of the training.
        epochs: Epochs of the training.
        method: ``dense``, or the setting of Eventful in the test.
        k: Tokens that pass each gate; None for dense.
        map50: mAP50 on the held-out frames, in percent.
        gmacs: Multiply-adds of a frame in 1e9.
    """

    training: str
    seed: int
    epochs: int
    method: str
    k: int | None
    map50: float
    gmacs: float


def configs_of(options: dict[str, object]) -> dict[str, Config]:
    """Make the config of each training, with the same pictures and the same number of steps."""
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
    """Format the mean over seeds of each training at each budget."""
    kinds = dict.fromkeys((row.training, row.method, row.k) for row in rows)
    lines = []
    for kind in kinds:
        own = [row.map50 for row in rows if (row.training, row.method, row.k) == kind]
        lines.append(
            f"{kind[0]:<16}{kind[1]:<12}{kind[2] or '-':>5}{mean(own):9.2f}  of {len(own)} seeds"
        )
    return lines


def line(row: Row) -> str:
    """Format a row."""
    return (
        f"{row.training:<16}seed {row.seed}, {row.epochs} epochs  {row.method:<12}{row.k or '-':>5}"
        f"{row.map50:9.2f}{row.gmacs:9.4f} G"
    )


def _report_drawing(what: str, done: int, total: int) -> None:
    if done == total:
        print(f"{what}: {total}", flush=True)


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Generate data, train, test, and write the record if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="epochs of a training (default: the config's)")
    parser.add_argument("--k", type=int, nargs="+", default=[64, 32, 16])
    parser.add_argument("--method", choices=list(METHODS), default="token-wise")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/random_budget"))
    add_record_option(parser)
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs {args.epochs}: give 1 or more.")
    recording, rows = Recording(args.record, __file__, argv), []
    for seed in args.seeds:
        rows += measure_seed(seed, args.epochs, args.k, args.method, args.work_dir)
    print("\n".join(means(rows)))
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
