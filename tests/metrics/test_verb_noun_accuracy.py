from __future__ import annotations

import itertools

import pytest
import torch

from mmvitaccel.metrics.verb_noun_accuracy import rank_of
from mmvitaccel.registry import METRICS


def evaluate(samples, **options):
    metric = METRICS.build(dict(type="mmvitaccel.VerbNounAccuracy", **options))
    for i in range(0, len(samples), 3):
        metric.process(None, samples[i : i + 3])
    return metric.evaluate(len(samples))


def test_against_sorting_all_pairs():
    torch.manual_seed(0)
    samples = [
        dict(
            pred_score=dict(verb=torch.rand(5), noun=torch.rand(7)),
            gt_label=torch.tensor([torch.randint(5, ()), torch.randint(7, ())]),
        )
        for _ in range(40)
    ]
    expected = dict.fromkeys(
        [f"acc/{n}_top{k}" for n in ("verb", "noun", "action") for k in (1, 3)], 0
    )
    for sample in samples:
        scores, (verb, noun) = sample["pred_score"], sample["gt_label"].tolist()
        pairs = sorted(
            itertools.product(range(5), range(7)),
            key=lambda p: -float(scores["verb"][p[0]] * scores["noun"][p[1]]),
        )
        for k in (1, 3):
            expected[f"acc/verb_top{k}"] += verb in scores["verb"].topk(k).indices.tolist()
            expected[f"acc/noun_top{k}"] += noun in scores["noun"].topk(k).indices.tolist()
            expected[f"acc/action_top{k}"] += (verb, noun) in pairs[:k]
    assert evaluate(samples, topk=(1, 3)) == pytest.approx({n: v / 40 for n, v in expected.items()})


def test_equal_scores_are_no_hits():
    assert [rank_of(torch.ones(4), i) for i in range(4)] == [0, 1, 2, 3]


def test_scores_and_labels_that_cannot_be_ranked():
    with pytest.raises(ValueError, match="a score is not finite"):
        rank_of(torch.tensor([0.5, float("nan")]), 0)
    with pytest.raises(ValueError, match="label 9 is not among the 4 classes"):
        rank_of(torch.ones(4), 9)


def test_verbs_alone():
    samples = [
        dict(pred_score=dict(verb=torch.tensor(scores)), gt_label=torch.tensor([1, 4]))
        for scores in ([0.1, 0.7, 0.2], [0.5, 0.3, 0.2])
    ]
    assert evaluate(samples, topk=(1, 2)) == {"acc/verb_top1": 0.5, "acc/verb_top2": 1.0}
