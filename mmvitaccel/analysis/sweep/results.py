"""Results of a sweep: its points, the Pareto front, and the cheapest point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmvitaccel.analysis.sweep.operating_point import DENSE, OperatingPoint
from mmvitaccel.errors import UserError

#: Costs of a point by the name of the figure.
COSTS = {"cost/gmacs": "G multiply-adds a frame", "cost/ms": "ms a frame"}
# Main metrics of OpenMMLab's evaluators, in order of preference.
_KNOWN = (
    "vid/mAP50",
    "coco/bbox_mAP",
    "pascal_voc/mAP",
    "acc/top1",
    "accuracy/top1",
    "acc/action_top1",
)


@dataclass(frozen=True)
class PointResult:
    """A point and the figures of its test.

    Attributes:
        point: The operating point.
        figures: Metrics by name; those of ``MacsMetric`` begin with ``cost/``.
    """

    point: OperatingPoint
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The JSON object to store."""
        point = self.point
        own = dict(method=point.method, policy=point.policy, k=point.k, r=point.r)
        return dict(own, threshold=point.threshold, hook=point.hook, figures=plain(self.figures))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PointResult:
        """Read the output of :meth:`to_json`."""
        own = {key: content[key] for key in ("method", "policy", "k", "r", "hook")}
        # Sweeps from before run-length tokenization have no threshold
        point = OperatingPoint(**own, threshold=content.get("threshold"))
        return cls(point, dict(content["figures"]))

    def value(self, name: str) -> float | None:
        """A figure as a number; None if the test did not return it."""
        return number(self.figures.get(name))


def number(figure: Any) -> float | None:
    """A figure as a number; None if it is not one."""
    is_one = isinstance(figure, (int, float)) and not isinstance(figure, bool)
    return float(figure) if is_one else None


def choose_metric(results: Sequence[Mapping[str, Any]], given: str | None = None) -> str:
    """Choose the accuracy metric, for which higher is better.

    Args:
        results: Figures of each point or format.
        given: The requested metric; by default the first known one that all results have.

    Raises:
        UserError: A result does not have the metric.
    """
    sets = [{n for n, f in figures.items() if number(f) is not None} for figures in results]
    shared = sorted(n for n in set.intersection(*sets) if not n.startswith("cost/"))
    metric = given or next((n for n in (*_KNOWN, *shared) if n in shared), None)
    if metric is None:
        raise UserError("test_evaluator returned no accuracy metric; add an evaluator.")
    if metric not in shared:
        raise UserError(
            f"--metric {metric}: not every test returned it; all have "
            f"{', '.join(shared) or 'none'}."
        )
    return metric


def pareto_front(results: Sequence[PointResult], metric: str, cost: str) -> list[PointResult]:
    """The points that no other point dominates in accuracy and cost, cheapest first.

    Controls (random tokens) are left out.
    """
    able = [r for r in results if not r.point.is_control and r.value(cost) is not None]
    front: list[PointResult] = []
    for result in sorted(able, key=lambda r: (r.value(cost), -r.value(metric))):
        if not front or result.value(metric) > front[-1].value(metric):
            front.append(result)
    return front


def dense_of(results: Sequence[PointResult]) -> PointResult:
    """The model without a method.

    Raises:
        UserError: The results have no dense point.
    """
    found = next((r for r in results if r.point.method == DENSE), None)
    if found is None:
        raise UserError("the sweep has no dense point to compare with; run it again.")
    return found


def recommend(
    results: Sequence[PointResult], metric: str, cost: str, loss: float
) -> PointResult | None:
    """The cheapest point that loses at most a share of the dense model's accuracy.

    Args:
        results: Results of one sweep.
        metric: The figure of accuracy.
        cost: One of :data:`COSTS`.
        loss: Accepted relative loss; 0.01 is one percent of the dense model's accuracy.

    Returns:
        The point, which may be the dense one; None if no point has this cost.
    """
    least = dense_of(results).value(metric) * (1 - loss)
    front = pareto_front(results, metric, cost)
    return next((r for r in front if r.value(metric) >= least), None)


def plain(value: Any) -> Any:
    """A figure, or figures by name, as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(own) for own in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
