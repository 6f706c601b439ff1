"""Data loaders that raise a one-sentence error for broken files, or skip and count them.

A worker returns errors that a user can fix with the batch. The main process raises them, so the
message is the same with and without workers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmvitaccel.errors import UserError
from mmvitaccel.loaders.broken import explain_sample, refuse_unended_pictures
from mmvitaccel.loaders.steps import explain_step

_MOST_REPLACED = 100  # consecutive broken samples after which the data set is considered broken
_WORKER_OPTIONS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout")


class Fetched(NamedTuple):
    """A sample of a data set (None if broken), and messages about broken samples.

    A ``mistake`` is one of the config, for which no sample is skipped.
    """

    sample: Any
    failures: list[str]
    mistake: str | None = None


class Batch(NamedTuple):
    """A collated batch (None if all samples are broken), and messages about broken samples."""

    data: Any
    failures: list[str]
    mistake: str | None = None


class SampleFetcher:
    """Fetches the samples of a batch for a DataLoader, which calls ``dataset.__getitems__``.

    Args:
        dataset: The data set.
        skip: Whether broken samples are skipped.
        replace: Whether a random sample replaces a skipped one, as by mmengine in training.
    """

    def __init__(self, dataset: Any, skip: bool, replace: bool) -> None:
        self.dataset, self.skip, self.replace = dataset, skip, replace

    def __call__(self, indices: Sequence[int]) -> list[Fetched]:
        """Fetch the samples with their error messages."""
        refuse_unended_pictures()
        return [self._fetch(index) for index in indices]

    def _fetch(self, index: int) -> Fetched:
        failures: list[str] = []
        while len(failures) < _MOST_REPLACED:
            try:
                return Fetched(self.dataset[index], failures)
            except Exception as error:
                sentence = explain_sample(error)
                mistake = explain_step(error) if sentence is None else None
                if mistake is not None:
                    return Fetched(None, failures, mistake)
                if sentence is None:
                    raise
                failures.append(sentence)
            if not (self.skip and self.replace):
                break
            index = int(np.random.randint(len(self.dataset)))
        return Fetched(None, failures)


class Collate:
    """Collates fetched samples without the broken ones.

    Args:
        collate: The loader's own function.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Any) -> Any:
        """A :class:`Batch` of fetched samples; other items go to the loader's function."""
        if not (isinstance(items, list) and items and isinstance(items[0], Fetched)):
            return self.collate(items)
        samples = [item.sample for item in items if item.sample is not None]
        failures = [failure for item in items for failure in item.failures]
        mistake = next(filter(None, (item.mistake for item in items)), None)
        return Batch(self.collate(samples) if samples else None, failures, mistake)


class CheckedLoader(DataLoader):
    """A DataLoader that raises errors of unreadable files, or counts them.

    Attributes:
        skip: Whether broken samples are skipped.
        skipped: Messages of the skipped samples, in order, without duplicates.
    """

    skip: bool
    skipped: dict[str, None]

    def __iter__(self) -> Iterator[Any]:
        """Yield batches.

        Raises:
            UserError: A file cannot be read, and broken files are not skipped, or a step of the
                pipeline fails for another reason.
        """
        for batch in super().__iter__():
            if not isinstance(batch, Batch):
                yield batch
                continue
            if batch.mistake is not None:
                raise UserError(batch.mistake)
            for failure in batch.failures:
                self._take(failure)
            if batch.data is not None:
                yield batch.data
            elif len(batch.failures) >= _MOST_REPLACED:
                raise UserError(f"{_MOST_REPLACED} broken samples in a row; the last: {failure}")

    def _take(self, failure: str) -> None:
        if not self.skip:
            raise UserError(f"{failure} (--skip-broken of the tools skips such files)")
        if failure not in self.skipped:
            self.skipped[failure] = None
            _say(f"skipped: {failure}")


def add_skip_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--skip-broken``."""
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="skip unreadable pictures and videos, and count them",
    )


def check_loader(loader: DataLoader, skip: bool = False, training: bool = False) -> CheckedLoader:
    """Make a loader raise errors of unreadable files, or count them.

    Args:
        loader: Changed in place, before it is iterated.
        skip: Whether broken samples are skipped.
        training: Whether other samples replace broken ones; otherwise batches are smaller.
    """
    loader.dataset.__getitems__ = SampleFetcher(loader.dataset, skip, training)
    loader.collate_fn = Collate(loader.collate_fn)
    loader.__class__ = CheckedLoader
    loader.skip, loader.skipped = skip, {}
    return loader


class CheckedLoading:
    """Replacement for ``build_dataloader`` of a Runner.

    Args:
        runner: The Runner.
        skip: Whether broken files are skipped.

    Attributes:
        loaders: The loaders built so far.
    """

    def __init__(self, runner: Runner, skip: bool) -> None:
        self.train = runner._train_dataloader
        self.build = runner.build_dataloader
        self.skip = skip
        self.loaders: list[CheckedLoader] = []
        runner.build_dataloader = self

    def __call__(self, dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """Build a loader like ``Runner.build_dataloader``."""
        training = dataloader is self.train
        if isinstance(dataloader, dict):
            dataloader = without_workers(dataloader)
        # Results of several processes are merged by their position in the data set
        skip = self.skip and (training or get_world_size() == 1)
        loader = check_loader(self.build(dataloader, *args, **kwargs), skip, training)
        self.loaders.append(loader)
        return loader

    def report(self) -> None:
        """Log how many files were skipped."""
        count = sum(len(loader.skipped) for loader in self.loaders)
        if count:
            _say(
                f"{count} broken {'file was' if count == 1 else 'files were'} skipped; metrics "
                f"based on the annotations count their objects as missed."
            )


def without_workers(loader: dict[str, Any]) -> dict[str, Any]:
    """A loader's config, without the options of workers if it has none."""
    options = [key for key in _WORKER_OPTIONS if loader.get(key)]
    if loader.get("num_workers", 0) != 0 or not options:
        return loader
    print_log(
        f"num_workers=0 loads in the main process; {', '.join(options)} "
        f"{'is' if len(options) == 1 else 'are'} left out.",
        logger="current",
    )
    return type(loader)({k: v for k, v in loader.items() if k not in options})


def _say(text: str) -> None:
    """Log on the first process; the others, whose log is silent, write to stderr."""
    if get_rank() == 0:
        print_log(text, logger="current", level=30)
    else:
        print(f"rank {get_rank()}: {text}", file=sys.stderr, flush=True)
