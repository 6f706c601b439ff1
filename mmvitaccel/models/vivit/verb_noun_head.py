"""The head for EPIC-Kitchens: a linear classifier of verbs and one of nouns."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_init
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmvitaccel.arguments import init_config, number, whole_number
from mmvitaccel.registry import MODELS

AVERAGES = ("prob", "score")


@MODELS.register_module()
class VerbNounHead(BaseModule):
    """Classifies the verb and the noun of a clip; a head for mmaction2's recognizers.

    Ground truth is ``gt_label`` (2,), verb and noun. A prediction has ``pred_score`` with entries
    ``verb`` (num_verbs,) and ``noun`` (num_nouns,), probabilities, and ``pred_label`` (2,).

    Args:
        num_verbs: Number of verb classes; 97 in EPIC-Kitchens-100.
        num_nouns: Number of noun classes; 300 in EPIC-Kitchens-100. With 0, only verbs are
            predicted, as with the weights of the Eventful Transformers paper.
        in_channels: Channels of the backbone's feature.
        dropout_ratio: Dropout of the feature.
        init_std: Standard deviation of the initial weights.
        label_smooth_eps: Label smoothing: share of the target that is spread over all classes.
        average_clips: What is averaged over the views of a clip: ``'prob'`` (probabilities) or
            ``'score'`` (logits).
        init_cfg: Initialization config of mmengine.

    Raises:
        ValueError: ``average_clips`` is unknown, or a number is out of range.
    """

    def __init__(
        self,
        num_verbs: int = 97,
        num_nouns: int = 300,
        in_channels: int = 768,
        dropout_ratio: float = 0.0,
        init_std: float = 0.02,
        label_smooth_eps: float = 0.0,
        average_clips: str = "prob",
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        owner = "VerbNounHead"
        super().__init__(init_config(owner, init_cfg))
        if average_clips not in AVERAGES:
            raise ValueError(
                f"VerbNounHead: average_clips={average_clips!r} is not known; give one of "
                f"{', '.join(AVERAGES)}."
            )
        self.num_verbs = whole_number(owner, "num_verbs", num_verbs, least=1)
        self.num_nouns = whole_number(owner, "num_nouns", num_nouns, least=0)
        in_channels = whole_number(owner, "in_channels", in_channels, least=1)
        self.init_std = number(owner, "init_std", init_std, above=0)
        self.label_smooth_eps = number(owner, "label_smooth_eps", label_smooth_eps, least=0, most=1)
        self.average_clips = average_clips
        self.dropout = nn.Dropout(number(owner, "dropout_ratio", dropout_ratio, least=0, most=1))
        self.fc_verb = nn.Linear(in_channels, self.num_verbs)
        self.fc_noun = nn.Linear(in_channels, self.num_nouns) if self.num_nouns else None

    def init_weights(self) -> None:
        """Initialise both classifiers from a truncated normal distribution."""
        for layer in (self.fc_verb, self.fc_noun):
            if layer is not None:
                trunc_normal_init(layer, std=self.init_std)

    def forward(self, x: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Compute logits.

        Args:
            x: Features (B, in_channels).
            **kwargs: Arguments that recognizers pass to every head; not used.

        Returns:
            ``verb`` (B, num_verbs) and, if ``num_nouns`` is not 0, ``noun`` (B, num_nouns).
        """
        x = self.dropout(x)
        logits = {"verb": self.fc_verb(x)}
        return logits if self.fc_noun is None else {**logits, "noun": self.fc_noun(x)}

    def loss(
        self, feats: Tensor, data_samples: list[BaseDataElement], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the cross-entropy of both classifiers and their accuracy on this batch.

        Args:
            feats: (B, in_channels).
            data_samples: B samples with ``gt_label`` (2,).
            **kwargs: Arguments that recognizers pass to every head; not used.

        Returns:
            Scalars ``loss_verb``, ``top1_verb``, ``loss_noun`` and ``top1_noun``.

        Raises:
            ValueError: A sample's label is not a pair.
        """
        for sample in data_samples:
            if sample.gt_label.shape != (2,):
                raise ValueError(
                    f"VerbNounHead: a label has shape {tuple(sample.gt_label.shape)}, not (2,) for "
                    "verb and noun; use a dataset with both, such as mmvitaccel.EpicKitchens."
                )
        labels = torch.stack([sample.gt_label for sample in data_samples]).to(feats.device)
        losses = {}
        for (name, logits), label in zip(self(feats).items(), labels.unbind(1)):
            losses[f"loss_{name}"] = F.cross_entropy(
                logits, label, label_smoothing=self.label_smooth_eps
            )
            losses[f"top1_{name}"] = (logits.detach().argmax(1) == label).float().mean()
        return losses

    def predict(
        self, feats: Tensor, data_samples: list[BaseDataElement], **kwargs: Any
    ) -> list[BaseDataElement]:
        """Predict verb and noun of each sample, averaged over its views.

        Args:
            feats: (B * views, in_channels); the views of a sample are successive.
            data_samples: B samples.
            **kwargs: Arguments that recognizers pass to every head; not used.

        Returns:
            ``data_samples``, with ``pred_label`` and ``pred_score``.
        """
        scores = {}
        for name, logits in self(feats).items():
            views = logits.unflatten(0, (len(data_samples), -1))  # (B, views, classes)
            if self.average_clips == "prob":
                scores[name] = views.softmax(2).mean(1)
            else:
                scores[name] = views.mean(1).softmax(1)
        for index, sample in enumerate(data_samples):
            own = {name: value[index] for name, value in scores.items()}
            sample.set_pred_label(torch.stack([value.argmax() for value in own.values()]))
            sample.set_pred_score(own)
        return data_samples
