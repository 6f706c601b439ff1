"""Data loaders whose broken files end in a sentence, or are skipped and counted.

A worker does not raise what a user can mend, it hands it over with the batch: in the main process
the same sentence is raised, whether there are workers or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmvitaccel.errors import UserError, frames_of_error, is_refusal, one_line
from mmvitaccel.loaders.damage import PICTURES, VIDEOS, describe_damage, is_unended, picture_damage

_MOST_REPLACED = 100  # broken samples in a row, before a data set is taken for broken
_WORKER_OPTIONS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout")
_DECODERS = ("mmaction.datasets.transforms.loading", "decord", "av", "mmcv.image", "mmcv.video")


class BrokenPicture(ValueError):
    """Bytes that are no whole picture."""


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


def explain_sample(error: Exception) -> str | None:
    """Say which file a sample could not be made of, and why; None for a fault of the program."""
    frames = frames_of_error(error)
    for path in _paths(frames):
        reason = describe_damage(path)
        if reason is not None:
            return f"{path}: {reason}; replace or remove it"
    if isinstance(error, BrokenPicture):
        path = next(_paths(frames), "a picture")
        return f"{path}: {error}; replace or remove it"
    if isinstance(error, UserError) or is_refusal(error):
        return one_line(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; correct the path or the permissions"
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    if module.startswith(_DECODERS):
        for path in _paths(frames):
            return f"{path}: it cannot be decoded ({one_line(error)}); replace or remove it"
    return None


def _paths(frames: Sequence[FrameType]) -> Iterator[str]:
    """Pictures and videos that the frames of an error were about, the innermost first."""
    seen: set[str] = set()
    for frame in reversed(frames):
        for path in _paths_in(frame.f_locals):
            # reason: a template of frames' names is no file
            if path not in seen and "{" not in path:
                seen.add(path)
                yield path


def _paths_in(names: dict[str, Any]) -> Iterator[str]:
    results = names.get("results")
    held = dict(names, **results) if isinstance(results, dict) else names
    for value in list(held.values()):
        if isinstance(value, str) and value.lower().endswith((*PICTURES, *VIDEOS)):
            yield value
    for name in ("img_path", "filename", "filepath"):
        if isinstance(held.get(name), str):
            yield held[name]
    if isinstance(results, dict) and "frame_dir" in results:
        template = str(results.get("filename_tmpl", ""))
        for number in np.ravel(results.get("frame_inds", ())):
            name = template.format(int(number) + int(results.get("offset", 0)))
            yield f"{results['frame_dir']}/{name}"


def refuse_unended_pictures() -> None:
    """Let ``mmcv.imfrombytes`` refuse a picture that is cut short; a second call changes nothing.

    OpenCV says nothing of it and fills up the rest in grey.
    """
    import mmcv

    decode = mmcv.imfrombytes
    if getattr(decode, "refuses_unended", False):
        return

    def imfrombytes(content: bytes, *args: Any, **kwargs: Any) -> np.ndarray:
        """As mmcv's, of whole pictures."""
        damage = picture_damage(content) if is_unended(bytes(content)) else None
        if damage is not None:
            raise BrokenPicture(damage)
        picture = decode(content, *args, **kwargs)
        if picture is None:
            raise BrokenPicture(picture_damage(content) or "the picture cannot be decoded")
        return picture

    imfrombytes.refuses_unended = True
    mmcv.imfrombytes = imfrombytes


def _say(text: str) -> None:
    """Log on the first process; the others, whose log is silent, write to stderr."""
    if get_rank() == 0:
        print_log(text, logger="current", level=30)
    else:
        print(f"rank {get_rank()}: {text}", file=sys.stderr, flush=True)
