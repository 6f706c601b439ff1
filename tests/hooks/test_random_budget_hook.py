"""RandomBudgetHook in mmengine's Runner: clips, budgets, and a model that is given back."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmvitaccel import TopK, apply_eventful
from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.hooks import RandomBudgetHook
from mmvitaccel.testing.models import timm_model


class Frames(torch.utils.data.Dataset):
    """Two videos of four frames."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((3, 64, 64), float(index)), frame=index)

    def get_data_info(self, index):
        return dict(video_id=index // 4, frame_id=index % 4)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = timm_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=1)
        self.batches = []

    def forward(self, inputs, frame, mode="tensor"):
        if self.training:
            self.batches.append(frame.tolist())
        out = self.backbone(torch.stack(tuple(inputs)))
        return dict(loss=out.square().mean()) if mode == "loss" else [out]


class Watch(Hook):
    """What a step trains with."""

    def __init__(self):
        self.budgets, self.evaluated = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        state = EventfulHandle(runner.model)._state
        self.budgets.append((state.training.frames, state.training.policy.k))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.evaluated.append(EventfulHandle(runner.model).frames[0].passed)


class Nothing:
    def process(self, **kwargs):
        pass

    def evaluate(self, size):
        return {}


def train(tmp_path, model, hook, seed=0):
    watch = Watch()
    loader = dict(
        dataset=Frames(), num_workers=0, collate_fn=dict(type="default_collate"), batch_size=4
    )
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader={
            **loader, "sampler": dict(type="mmvitaccel.ClipSampler", frames=2, seed=0)
        },
        val_dataloader={
            **loader, "batch_size": 1, "sampler": dict(type="DefaultSampler", shuffle=False)
        },
        val_evaluator=dict(type="Evaluator", metrics=[]),
        val_cfg=dict(type="ValLoop"),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.0)),
        custom_hooks=[hook, watch],
        randomness=dict(seed=seed),
        default_scope="mmengine",
    )  # fmt: skip
    runner.train()
    return watch


def test_budgets_are_drawn_and_the_model_is_given_back(tmp_path):
    model = Model()
    classes = [type(module) for module in model.modules()]
    watch = train(tmp_path, model, RandomBudgetHook(k=(2, 12)))
    frames, budgets = zip(*watch.budgets)
    assert set(frames) == {2} and len(budgets) == 6
    assert 2 <= min(budgets) < max(budgets) <= 12 and len(set(budgets)) > 2
    for batch in model.batches:  # two clips each
        assert [batch[1], batch[3]] == [batch[0] + 1, batch[2] + 1]
    # evaluation is the dense model's
    assert all(passed in ([(17,) * 3] * 2, []) for passed in watch.evaluated)
    assert not any(is_attached(module, "Eventful") for module in model.modules())
    assert [type(module) for module in model.modules()] == classes
    again = train(tmp_path, Model(), RandomBudgetHook(k=(2, 12)))
    assert again.budgets == watch.budgets
    assert train(tmp_path, Model(), RandomBudgetHook(k=(2, 12)), 1).budgets != watch.budgets


def test_a_model_that_is_eventful_stays_so(tmp_path):
    model = Model()
    handle = apply_eventful(model.backbone, TopK(5))
    watch = train(tmp_path, model, RandomBudgetHook(k=(3, 3)))
    assert set(watch.budgets) == {(2, 3)}
    assert handle.attached and handle.policy.k == 5 and handle._state.training is None


def test_what_makes_no_sense_is_refused():
    for k in ((0, 4), (5, 4), (4,)):
        with pytest.raises(
            ValueError, match=r"k=.* must be two whole numbers.*give the smallest and the largest"
        ):
            RandomBudgetHook(k=k)
    with pytest.raises(ValueError, match="frames=1 must be a whole number of frames, at least 2"):
        RandomBudgetHook(k=(1, 4), frames=1)
