"""Cost per frame, reported together with accuracy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmvitaccel.metrics.exchange import exchange
from mmvitaccel.registry import METRICS

_GIGA = 1e9
_PARTS = ("backbone", "neck", "rpn_head", "bbox_head", "roi_head")
Cost = dict[str, Any]


@METRICS.register_module()
class MacsMetric(BaseMetric):
    """Means per frame of the cost that :class:`~mmvitaccel.hooks.cost_hook.CostHook` measures.

    Reports for the backbone (``cost/backbone_*``), the other parts of a detector (``neck_*``,
    ``rpn_head_*``, ``bbox_head_*``, ``roi_head_*``; only multiply-adds) and the whole model:

    - ``gmacs``: multiply-adds in units of 1e9, the mean over all frames including the first frame
      of each video, as in the paper; also ``first_gmacs`` and ``later_gmacs`` separately;
    - ``dense_gmacs``: the same for the model without any method, and ``ratio``, dense over mean;
    - ``first_ms``, ``later_ms``: milliseconds, from preprocessing to boxes for the whole model;
      ``ms``: the median of the first frames and that of later ones, weighted as ``gmacs`` are, so
      that short disturbances of the machine do not change it;
    - ``layers``, ``dense_layers``: G multiply-adds of each layer of the parts by name, the mean
      over later frames, or over all frames if there are none;
    - ``tokens``: tokens that pass each gate in later frames;
    - ``left_out``: for eventful models, the squared error of the tokens that did not pass the
      gates, relative to the squared norm of all tokens, averaged over gates and frames;
    - ``computed``: for eventful parts after the backbone, the share of their work in later frames;
    - ``refreshed``: for eventful models, the share of frames that were refreshed, that is computed
      completely within a stream. They count as later frames in all means.

    A value without any frame, such as later frames in one-frame videos, is left out.

    Args:
        collect_device: ``cpu`` or ``gpu``: the device for gathering results.
        prefix: Prefix of the reported names. Defaults to ``cost``.
        collect_dir: Folder shared by the ranks, for ``collect_device='cpu'``.
    """

    default_prefix = "cost"

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(**exchange("MacsMetric", collect_device, prefix, collect_dir))

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Store the cost of each frame.

        Raises:
            RuntimeError: The results have no cost.
        """
        images = [
            image for sample in data_samples for image in sample.get("video_data_samples", [sample])
        ]
        for image in images:
            if image.get("cost") is None:
                raise RuntimeError(
                    "MacsMetric: the results have no cost; add dict(type='mmvitaccel.CostHook') "
                    "to custom_hooks."
                )
            self.results.append(image.get("cost"))

    def evaluate(self, size: int) -> dict[str, Any]:
        """Gather from all ranks and compute.

        Args:
            size: Number of items in the dataset.

        Returns:
            Figures by name, the same on every rank.
        """
        # Results are not truncated, because ranks with whole videos have different lengths
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Means over the gathered frames.

        Args:
            results: The cost of each frame.

        Returns:
            Figures by name.
        """
        kinds = {
            "first": [cost for cost in results if cost["first"]],
            "later": [cost for cost in results if not cost["first"]],
        }
        kinds = {kind: costs for kind, costs in kinds.items() if costs}
        parts = [part for part in _PARTS if any(f"{part}_macs" in cost for cost in results)]
        figures = {}
        for prefix in (*(f"{part}_" for part in parts), ""):
            figures.update(_part_figures(prefix, kinds))
        left_out = _mean(results, "left_out")
        if left_out is not None:
            figures["left_out"] = left_out
        refreshed = _mean(results, "refreshed")
        if refreshed is not None:
            figures["refreshed"] = refreshed
        dense = _means(kinds.get("later", results), "dense_layers")
        own = _means(kinds.get("later", results), "layers")
        for name, means in (("layers", own), ("dense_layers", dense)):
            # Most modules have no multiply-adds
            counted = {n: macs for n, macs in means.items() if own.get(n) or dense.get(n)}
            if counted:
                figures[name] = {layer: macs / _GIGA for layer, macs in counted.items()}
        for name in ("tokens", "computed"):
            means = _means(kinds.get("later", []), name)
            if means:
                figures[name] = means
        MMLogger.get_current_instance().info("\n" + _table(figures, kinds, parts))
        return figures


def _part_figures(part: str, kinds: dict[str, list[Cost]]) -> dict[str, float]:
    """Figures of a part (``part`` is e.g. ``backbone_``) or of the whole model (empty)."""
    frames = [cost for costs in kinds.values() for cost in costs]
    dense = _mean(frames, f"dense_{part}macs")
    figures = {f"{part}dense_gmacs": dense / _GIGA}
    means = {kind: _mean(costs, f"{part}macs") for kind, costs in kinds.items()}
    figures.update(
        {f"{part}{kind}_gmacs": macs / _GIGA for kind, macs in means.items() if macs is not None}
    )
    if None not in means.values():
        # Only some of the later frames are counted, so each kind is weighted by its number
        mean = sum(means[kind] * len(costs) for kind, costs in kinds.items()) / len(frames)
        figures[f"{part}gmacs"] = mean / _GIGA
        figures[f"{part}ratio"] = dense / mean if mean else float("nan")
    for kind, costs in kinds.items():
        milliseconds = _mean(costs, f"{part}ms")
        if milliseconds is not None:
            figures[f"{part}{kind}_ms"] = milliseconds
    typical = [
        [cost[f"{part}ms"] for cost in costs if f"{part}ms" in cost] for costs in kinds.values()
    ]
    if all(typical):
        weighted = sum(median(ms) * len(costs) for ms, costs in zip(typical, kinds.values()))
        figures[f"{part}ms"] = weighted / len(frames)
    return figures


def _mean(costs: list[Cost], key: str) -> float | None:
    """Mean over the frames that have the figure; None if no frame has it."""
    values = [cost[key] for cost in costs if key in cost]
    return sum(values) / len(values) if values else None


def _means(costs: list[Cost], name: str) -> dict[str, float]:
    """Means of figures that are given per gate or per part."""
    by_place: dict[str, list[float]] = {}
    for cost in costs:
        for place, value in cost.get(name, {}).items():
            by_place.setdefault(place, []).append(value)
    return {place: sum(values) / len(values) for place, values in by_place.items()}


def _table(figures: dict[str, Any], kinds: dict[str, list[Cost]], parts: list[str]) -> str:
    """The values as a text table."""
    heads = "".join(f"{part:>12}" for part in parts)
    lines = [f"{'cost per frame':<28}{heads}{'whole model':>14}"]
    rows = [
        ("dense, G multiply-adds", "dense_gmacs", "{:.3f}"),
        *((f"{kind} frames, G", f"{kind}_gmacs", "{:.3f}") for kind in kinds),
        ("mean, G", "gmacs", "{:.3f}"),
        ("dense / mean", "ratio", "{:.2f}x"),
        *((f"{kind} frames, ms", f"{kind}_ms", "{:.1f}") for kind in kinds),
    ]
    for label, name, form in rows:
        cells = [
            form.format(figures[part + name]) if part + name in figures else "-"
            for part in (*(f"{part}_" for part in parts), "")
        ]
        lines.append(f"{label:<28}{''.join(f'{cell:>12}' for cell in cells[:-1])}{cells[-1]:>14}")
    for kind, costs in kinds.items():
        counted, timed = (sum(key in cost for cost in costs) for key in ("macs", "ms"))
        lines.append(f"{len(costs)} {kind} frames: {counted} counted, {timed} timed")
    if "left_out" in figures:
        lines.append(f"left out, mean over gates and frames: {figures['left_out']:.2e}")
    if "computed" in figures:
        shares = ", ".join(f"{part} {share:.1%}" for part, share in figures["computed"].items())
        lines.append(f"computed in later frames: {shares}")
    if figures.get("refreshed"):
        lines.append(f"refreshed frames: {figures['refreshed']:.1%}")
    return "\n".join(lines + _token_lines(figures.get("tokens", {})))


def _token_lines(tokens: dict[str, float]) -> list[str]:
    """A line for each block with the tokens that passed its gates."""
    by_block: dict[str, list[str]] = {}
    for gate, number in tokens.items():
        block, _, name = gate.rpartition(".")
        by_block.setdefault(block, []).append(f"{name} {number:.1f}")
    return [f"tokens let through, {block}: {', '.join(g)}" for block, g in by_block.items()]
