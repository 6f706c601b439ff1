"""Accuracy of verbs, nouns and actions, as defined by the EPIC-Kitchens-100 challenge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmvitaccel.arguments import whole_numbers
from mmvitaccel.metrics.exchange import exchange
from mmvitaccel.registry import METRICS


@METRICS.register_module()
class VerbNounAccuracy(BaseMetric):
    """Top-k accuracy of the verb, of the noun and of both together (the action), in 0..1.

    An action is a pair of verb and noun; its score is the product of their probabilities, and all
    pairs are ranked. A head with verbs only reports the verb's accuracy only.

    Args:
        topk: Values of k to report.
        collect_device: ``cpu`` or ``gpu``, where ranks exchange results.
        prefix: Prefix of the reported names. Defaults to ``acc``.

    Raises:
        ValueError: ``topk`` is not one or more whole numbers of at least 1.
    """

    default_prefix = "acc"

    def __init__(
        self, topk: Sequence[int] = (1, 5), collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(**exchange("VerbNounAccuracy", collect_device, prefix))
        self.topk = whole_numbers("VerbNounAccuracy", "topk", topk, least=1)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Store the rank of the true class for each sample of a batch."""
        for sample in data_samples:
            verb, noun = sample["pred_score"]["verb"], sample["pred_score"].get("noun")
            truth = sample["gt_label"].tolist()
            if noun is None:
                self.results.append({"verb": rank_of(verb, truth[0])})
                continue
            pairs = verb[:, None] * noun[None, :]
            self.results.append(
                {
                    "verb": rank_of(verb, truth[0]),
                    "noun": rank_of(noun, truth[1]),
                    "action": rank_of(pairs.flatten(), truth[0] * len(noun) + truth[1]),
                }
            )

    def compute_metrics(self, results: list[dict[str, int]]) -> dict[str, float]:
        """Share of samples with the true class among the k best, by name: ``verb_top1``, ..."""
        return {
            f"{name}_top{k}": sum(result[name] < k for result in results) / len(results)
            for name in results[0]
            for k in self.topk
        }


def rank_of(scores: Tensor, truth: int) -> int:
    """Rank of class ``truth`` among the scores (K,), from 0; of equal scores the first is better.

    Raises:
        ValueError: A score is not a number, or ``truth`` is not among the classes.
    """
    if not 0 <= truth < len(scores):
        raise ValueError(
            f"VerbNounAccuracy: label {truth} is not among the {len(scores)} classes of the head; "
            "correct num_verbs and num_nouns or the annotations."
        )
    if not torch.isfinite(scores).all():
        raise ValueError("VerbNounAccuracy: a score is not finite; the model has diverged.")
    return int((scores > scores[truth]).sum() + (scores[:truth] == scores[truth]).sum())
