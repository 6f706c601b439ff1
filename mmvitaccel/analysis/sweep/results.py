"""What a sweep measured: its points, the Pareto front, and the cheapest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmvitaccel.analysis.sweep.operating_point import DENSE, OperatingPoint
from mmvitaccel.errors import UserError

#: What a point costs, by the name of the figure.
COSTS = {"cost/gmacs": "G multiply-adds a frame", "cost/ms": "ms a frame"}
# What the evaluators of OpenMMLab call the figure that a model is known by, the first found first.
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
    """A point and the figures of its test, by their names.

    Attributes:
        point: What was tested.
        figures: Of the evaluators; those of ``MacsMetric`` begin with ``cost/``.
    """

    point: OperatingPoint
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        point = self.point
        own = dict(method=point.method, policy=point.policy, k=point.k, r=point.r)
        return dict(own, hook=point.hook, figures=plain(self.figures))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PointResult:
        """What :meth:`to_json` gave."""
        own = {key: content[key] for key in ("method", "policy", "k", "r", "hook")}
        return cls(OperatingPoint(**own), dict(content["figures"]))

    def value(self, name: str) -> float | None:
        """A figure as a number; None where the test did not give it."""
        return number(self.figures.get(name))


def number(figure: Any) -> float | None:
    """A figure as a number; None of one that is none."""
    is_one = isinstance(figure, (int, float)) and not isinstance(figure, bool)
    return float(figure) if is_one else None


def choose_metric(results: Sequence[Mapping[str, Any]], given: str | None = None) -> str:
    """The figure that stands for accuracy: the higher, the better.

    Args:
        results: Figures of each point, or of whatever is compared.
        given: The one asked for; by default the first known one that all have.

    Raises:
        UserError: One does not have it.
    """
    sets = [{n for n, f in figures.items() if number(f) is not None} for figures in results]
    shared = sorted(n for n in set.intersection(*sets) if not n.startswith("cost/"))
    metric = given or next((n for n in (*_KNOWN, *shared) if n in shared), None)
    if metric is None:
        raise UserError("test_evaluator gives no figure of accuracy; put an evaluator into it.")
    if metric not in shared:
        raise UserError(
            f"--metric {metric}: not every test gives it; all give {', '.join(shared) or 'none'}."
        )
    return metric


def pareto_front(results: Sequence[PointResult], metric: str, cost: str) -> list[PointResult]:
    """The points that no other one beats in accuracy and cost at once, the cheapest first.

    Random tokens, which are there to be compared with, are none of them.
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
        UserError: It is not among them.
    """
    found = next((r for r in results if r.point.method == DENSE), None)
    if found is None:
        raise UserError("the sweep has no dense point to compare with; let it run again.")
    return found


def recommend(
    results: Sequence[PointResult], metric: str, cost: str, loss: float
) -> PointResult | None:
    """The cheapest point that loses no more than a share of the dense model's accuracy.

    Args:
        results: Of one sweep.
        metric: The figure of accuracy.
        cost: One of :data:`COSTS`.
        loss: 0.01 lets one percent of the dense model's accuracy be lost.

    Returns:
        The point, which may be the dense one; None where no point has that cost.
    """
    least = dense_of(results).value(metric) * (1 - loss)
    front = pareto_front(results, metric, cost)
    return next((r for r in front if r.value(metric) >= least), None)


def plain(value: Any) -> Any:
    """A figure, or figures by name, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(own) for own in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
