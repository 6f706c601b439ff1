"""Data loaders whose broken files end in a sentence, or are skipped and counted.

A worker does not raise what a user can mend, it hands it over with the batch: in the main process
the same sentence is raised, whether there are workers or not.
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

_MOST_REPLACED = 100  # broken samples in a row, before a data set is taken for broken
_WORKER_OPTIONS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout")


class Fetched(NamedTuple):
    """A sample of a data set, None if it is broken, and what was said of broken ones."""

    sample: Any
    failures: list[str]


class Batch(NamedTuple):
    """A collated batch, None if every sample of it is broken, and what was said of those."""

    data: Any
    failures: list[str]


class SampleFetcher:
    """Fetches the samples of a batch for a DataLoader, which calls ``dataset.__getitems__``.

    Args:
        dataset: Whose samples.
        skip: Whether a broken sample is passed over.
        replace: Whether another one takes its place then, at random, as mmengine does in training.
    """

    def __init__(self, dataset: Any, skip: bool, replace: bool) -> None:
        self.dataset, self.skip, self.replace = dataset, skip, replace

    def __call__(self, indices: Sequence[int]) -> list[Fetched]:
        """The samples, each with what went wrong."""
        refuse_unended_pictures()
        return [self._fetch(index) for index in indices]

    def _fetch(self, index: int) -> Fetched:
        failures: list[str] = []
        while len(failures) < _MOST_REPLACED:
            try:
                return Fetched(self.dataset[index], failures)
            except Exception as error:
                sentence = explain_sample(error)
                if sentence is None:
                    raise
                failures.append(sentence)
            if not (self.skip and self.replace):
                break
            index = int(np.random.randint(len(self.dataset)))
        return Fetched(None, failures)


class Collate:
    """Collates what was fetched, without the broken samples.

    Args:
        collate: The loader's own.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Any) -> Any:
        """A :class:`Batch` of fetched samples; anything else as the loader's own collates it."""
        if not (isinstance(items, list) and items and isinstance(items[0], Fetched)):
            return self.collate(items)
        samples = [item.sample for item in items if item.sample is not None]
        failures = [failure for item in items for failure in item.failures]
        return Batch(self.collate(samples) if samples else None, failures)


class CheckedLoader(DataLoader):
    """A DataLoader that raises or counts what its data set could not read.

    Attributes:
        skip: Whether broken samples are passed over.
        skipped: The sentences of those that were, in order, each once.
    """

    skip: bool
    skipped: dict[str, None]

    def __iter__(self) -> Iterator[Any]:
        """Yield batches.

        Raises:
            UserError: A file cannot be read, and broken ones are not skipped.
        """
        for batch in super().__iter__():
            if not isinstance(batch, Batch):
                yield batch
                continue
            for failure in batch.failures:
                self._take(failure)
            if batch.data is not None:
                yield batch.data
            elif len(batch.failures) >= _MOST_REPLACED:
                raise UserError(f"{_MOST_REPLACED} broken samples in a row; the last: {failure}")

    def _take(self, failure: str) -> None:
        if not self.skip:
            raise UserError(f"{failure} (--skip-broken of the tools passes over such files)")
        if failure not in self.skipped:
            self.skipped[failure] = None
            _say(f"skipped: {failure}")


def add_skip_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--skip-broken``."""
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="pass over pictures and videos that cannot be read, and count them",
    )


def check_loader(loader: DataLoader, skip: bool = False, training: bool = False) -> CheckedLoader:
    """Let a loader raise or count what its data set cannot read.

    Args:
        loader: Changed in place, before it is iterated.
        skip: Whether broken samples are passed over.
        training: Whether another sample takes the place of a broken one; else batches are smaller.
    """
    loader.dataset.__getitems__ = SampleFetcher(loader.dataset, skip, training)
    loader.collate_fn = Collate(loader.collate_fn)
    loader.__class__ = CheckedLoader
    loader.skip, loader.skipped = skip, {}
    return loader


class CheckedLoading:
    """What builds the loaders of a Runner, in the place of its ``build_dataloader``.

    Args:
        runner: Whose loaders.
        skip: Whether broken files are passed over.

    Attributes:
        loaders: Those that were built.
    """

    def __init__(self, runner: Runner, skip: bool) -> None:
        self.train = runner._train_dataloader
        self.build = runner.build_dataloader
        self.skip = skip
        self.loaders: list[CheckedLoader] = []
        runner.build_dataloader = self

    def __call__(self, dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """As ``Runner.build_dataloader``."""
        training = dataloader is self.train
        if isinstance(dataloader, dict):
            dataloader = without_workers(dataloader)
        # reason: results of several processes are put together by their places in the data set
        skip = self.skip and (training or get_world_size() == 1)
        loader = check_loader(self.build(dataloader, *args, **kwargs), skip, training)
        self.loaders.append(loader)
        return loader

    def report(self) -> None:
        """Say how many files were skipped."""
        count = sum(len(loader.skipped) for loader in self.loaders)
        if count:
            _say(
                f"{count} broken {'file was' if count == 1 else 'files were'} skipped; a metric "
                "that goes by the annotations counts their objects as missed."
            )


def without_workers(loader: dict[str, Any]) -> dict[str, Any]:
    """A loader's config without what only workers have, if it has no workers."""
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
