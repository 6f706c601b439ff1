"""Class names in pictures of OpenMMLab's visualizers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmvitaccel.pictures.text import families, legible

_NAMED = 5


class LegibleNamesHook(Hook):
    """Hook that lets the runner's visualizer draw names in any script.

    Each text is drawn with installed fonts that have its characters. A name without a font gets the
    number of its class as a prefix, with one warning.
    """

    def __init__(self) -> None:
        self.shown: tuple[str, ...] | None = None

    def before_val(self, runner: Runner) -> None:
        """Check the names of the validation set."""
        self._serve(runner.visualizer)

    def before_test(self, runner: Runner) -> None:
        """Check the names of the test set."""
        self._serve(runner.visualizer)

    def _serve(self, visualizer: Any) -> None:
        meta = visualizer.dataset_meta or {}
        names = tuple(map(str, meta.get("classes") or ()))
        if names == self.shown or all(name.isascii() for name in names):
            return
        shown = tuple(legible(name, number) for number, name in enumerate(names))
        foreign = [name for name, new in zip(names, shown) if new != name]
        if foreign:
            more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
            print_log(
                f"No installed font has all characters of {', '.join(foreign[:_NAMED])}{more}: "
                "in pictures their numbers stand in front; install a font that has them, such as "
                "fonts-noto-cjk.",
                logger="current",
                level=30,
            )
        if self.shown is None:
            visualizer.draw_texts = functools.partial(_draw_texts, visualizer.draw_texts)
        visualizer.dataset_meta = dict(meta, classes=shown)
        self.shown = shown


def _draw_texts(draw: Callable[..., Any], texts: str | list[str], *args: Any, **kwargs: Any) -> Any:
    """``Visualizer.draw_texts``, each text in the fonts that it needs."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not all(text.isascii() for text in texts):
        kwargs["font_families"] = [families(text) for text in texts]
    return draw(texts, *args, **kwargs)
