from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmvitaccel.registry import MODELS

ActionDataSample = pytest.importorskip("mmaction.structures").ActionDataSample


def head(**options):
    torch.manual_seed(0)
    config = dict(type="mmvitaccel.VerbNounHead", num_verbs=4, num_nouns=6, in_channels=8)
    built = MODELS.build(config | options)
    built.init_weights()
    return built


def samples(*labels):
    return [ActionDataSample().set_gt_label(list(label)) for label in labels]


def test_loss_is_of_both_and_gradients_reach_both():
    built, x = head(label_smooth_eps=0.2), torch.randn(3, 8)
    losses = built.loss(x, samples((0, 5), (3, 1), (2, 2)))
    for name, labels in (("verb", [0, 3, 2]), ("noun", [5, 1, 2])):
        logits = built(x)[name].log_softmax(1)
        target = torch.full_like(logits, 0.2 / logits.shape[1])
        target[range(3), labels] += 0.8
        torch.testing.assert_close(losses[f"loss_{name}"], -(target * logits).sum(1).mean())
        hits = [int(logits[i].argmax()) == label for i, label in enumerate(labels)]
        assert losses[f"top1_{name}"] == pytest.approx(sum(hits) / 3)
    (losses["loss_verb"] + losses["loss_noun"]).backward()
    assert all(p.grad.abs().sum() > 0 for p in built.parameters())


@pytest.mark.parametrize("average", ["prob", "score"])
def test_views_of_a_clip_are_averaged(average):
    built, x = head(average_clips=average).eval(), 50 * torch.randn(2 * 3, 8)
    out = built.predict(x, samples((0, 0), (1, 1)))
    for i, sample in enumerate(out):
        for j, name in enumerate(("verb", "noun")):
            views = built(x)[name][3 * i : 3 * i + 3]
            mean = F.softmax(views, 1).mean(0) if average == "prob" else views.mean(0).softmax(0)
            torch.testing.assert_close(sample.pred_score[name], mean)
            assert sample.pred_label[j] == mean.argmax()


def test_labels_that_are_no_pairs():
    with pytest.raises(ValueError, match=r"a label has shape \(1,\), not \(2,\) for verb and noun"):
        head().loss(torch.randn(1, 8), samples((1,)))
    with pytest.raises(ValueError, match="average_clips='mean' is not known"):
        head(average_clips="mean")


def test_verbs_alone():
    built, both, x = head(num_nouns=0), head(), torch.randn(2, 8)
    assert set(built.state_dict()) == {"fc_verb.weight", "fc_verb.bias"}
    both.load_state_dict(built.state_dict(), strict=False)
    losses = built.loss(x, samples((1, 5), (3, 2)))
    assert losses.keys() == {"loss_verb", "top1_verb"}
    torch.testing.assert_close(
        losses["loss_verb"], both.loss(x, samples((1, 5), (3, 2)))["loss_verb"]
    )
    (found, _) = built.predict(x, samples((1, 5), (3, 2)))
    torch.testing.assert_close(found.pred_score["verb"], built(x)["verb"][0].softmax(0))
    assert found.pred_label.tolist() == [int(built(x)["verb"][0].argmax())]
