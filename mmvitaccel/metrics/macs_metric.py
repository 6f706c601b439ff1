"""Cost per frame, reported together with accuracy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmvitaccel.registry import METRICS

_GIGA = 1e9
Cost = dict[str, Any]


@METRICS.register_module()
class MacsMetric(BaseMetric):
    """Means per frame of the cost that :class:`mmvitaccel.CostHook` measures.

    Reports for the backbone (``cost/backbone_*``) and the whole model:

    - ``gmacs``: multiply-adds in units of 1e9, the mean over all frames including the first frame
      of each video, as in the paper; also ``first_gmacs`` and ``later_gmacs`` separately;
    - ``dense_gmacs``: the same for the model without any method, and ``ratio``, dense over mean;
    - ``first_ms``, ``later_ms``: milliseconds, from preprocessing to boxes for the whole model;
    - ``tokens``: tokens that pass each gate in later frames;
    - ``left_out``: of eventful models, the squared error that did not pass the gates over the
      squared norm of the tokens, the mean over gates and all frames.

    A value without any frame, such as later frames in one-frame videos, is left out.

    Args:
        collect_device: ``cpu`` or ``gpu``, where ranks exchange results.
        prefix: Of the names reported. Defaults to ``cost``.
        collect_dir: Folder shared by the ranks, for ``collect_device='cpu'``.
    """

    default_prefix = "cost"

    def __init__(
        self,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)

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
                    "MacsMetric: the results carry no cost; add dict(type='mmvitaccel.CostHook') "
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
        # reason: nothing is cut off; ranks with whole videos have different numbers of frames.
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
        figures = {**_part_figures("backbone_", kinds), **_part_figures("", kinds)}
        left_out = _mean(results, "left_out")
        if left_out is not None:
            figures["left_out"] = left_out
        tokens = _mean_tokens(kinds.get("later", []))
        if tokens:
            figures["tokens"] = tokens
        MMLogger.get_current_instance().info("\n" + _table(figures, kinds))
        return figures


def _part_figures(part: str, kinds: dict[str, list[Cost]]) -> dict[str, float]:
    """Figures of the backbone (``part`` is ``backbone_``) or of the whole model (empty)."""
    frames = [cost for costs in kinds.values() for cost in costs]
    dense = _mean(frames, f"dense_{part}macs")
    figures = {f"{part}dense_gmacs": dense / _GIGA}
    means = {kind: _mean(costs, f"{part}macs") for kind, costs in kinds.items()}
    figures.update(
        {f"{part}{kind}_gmacs": macs / _GIGA for kind, macs in means.items() if macs is not None}
    )
    if None not in means.values():
        # reason: fewer later frames are counted than there are; each kind has its own weight
        mean = sum(means[kind] * len(costs) for kind, costs in kinds.items()) / len(frames)
        figures[f"{part}gmacs"] = mean / _GIGA
        figures[f"{part}ratio"] = dense / mean if mean else float("nan")
    for kind, costs in kinds.items():
        milliseconds = _mean(costs, f"{part}ms")
        if milliseconds is not None:
            figures[f"{part}{kind}_ms"] = milliseconds
    return figures


def _mean(costs: list[Cost], key: str) -> float | None:
    """Mean over the frames that have the figure; None if none has."""
    values = [cost[key] for cost in costs if key in cost]
    return sum(values) / len(values) if values else None


def _mean_tokens(costs: list[Cost]) -> dict[str, float]:
    """Mean number of tokens that passed, by gate."""
    by_gate: dict[str, list[float]] = {}
    for cost in costs:
        for gate, tokens in cost.get("tokens", {}).items():
            by_gate.setdefault(gate, []).append(tokens)
    return {gate: sum(tokens) / len(tokens) for gate, tokens in by_gate.items()}


def _table(figures: dict[str, Any], kinds: dict[str, list[Cost]]) -> str:
    """The values as a text table."""
    lines = [f"{'cost per frame':<28}{'backbone':>12}{'whole model':>14}"]
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
            for part in ("backbone_", "")
        ]
        lines.append(f"{label:<28}{cells[0]:>12}{cells[1]:>14}")
    for kind, costs in kinds.items():
        counted, timed = (sum(key in cost for cost in costs) for key in ("macs", "ms"))
        lines.append(f"{len(costs)} {kind} frames: {counted} counted, {timed} timed")
    if "left_out" in figures:
        lines.append(f"left out, mean over gates and frames: {figures['left_out']:.2e}")
    return "\n".join(lines + _token_lines(figures.get("tokens", {})))


def _token_lines(tokens: dict[str, float]) -> list[str]:
    """A line for each block: what its gates let through."""
    by_block: dict[str, list[str]] = {}
    for gate, number in tokens.items():
        block, _, name = gate.rpartition(".")
        by_block.setdefault(block, []).append(f"{name} {number:.1f}")
    return [f"tokens let through, {block}: {', '.join(g)}" for block, g in by_block.items()]
