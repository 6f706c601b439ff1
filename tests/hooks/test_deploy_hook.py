"""DeployHook in a real Runner: the test folds, training does not, and EMA survives it."""

from __future__ import annotations

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from mmvitaccel.hooks.deploy_hook import fold_model
from mmvitaccel.models.efficientvit.backbone import EfficientViT

ARCH = dict(embed_dims=(16, 16), depths=(1, 1), num_heads=(2, 2), kernels=(3, 3))


class Images(Dataset):
    """Four seeded images of 32 pixels."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))


class Regressor(BaseModel):
    """An EfficientViT, and one number for each image."""

    def __init__(self, folds: bool = True) -> None:
        super().__init__()
        self.backbone = (
            EfficientViT(ARCH, out_indices=(1,), window_size=(7, 7))
            if folds
            else nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Identity())
        )
        self.folds = folds
        self.head = nn.Linear(16, 1)

    def forward(self, images: list[Tensor], mode: str = "tensor"):
        features = self.backbone(torch.stack(images))
        features = features[0] if self.folds else features
        values = self.head(features.mean((2, 3)))[:, 0]
        return {"loss": (values - 1).square().mean()} if mode == "loss" else list(values)


class Values(BaseMetric):
    """Keeps what the model put out, and whether it still had BatchNorm."""

    default_prefix = "values"
    model: nn.Module | None = None

    def process(self, data_batch, data_samples) -> None:
        norms = sum(isinstance(m, _BatchNorm) for m in Values.model.modules())
        self.results.extend((value.item(), norms) for value in data_samples)

    def compute_metrics(self, results) -> dict:
        return {"outputs": [value for value, _ in results], "norms": results[0][1]}


def collate(images: list[Tensor]) -> dict:
    return dict(images=images)


@pytest.fixture
def runner(tmp_path, request, randomise_norms):
    """Build a Runner whose model has something in its BatchNorm."""
    made = []

    def build(hooks: list[dict], folds: bool = True, **kwargs) -> Runner:
        torch.manual_seed(0)
        loader = dict(
            batch_size=2,
            num_workers=0,
            dataset=Images(),
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=collate,
        )
        model = Regressor(folds)
        randomise_norms(model)
        Values.model = model
        out = Runner(
            model=model,
            work_dir=str(tmp_path / str(len(made))),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            val_cfg={},
            test_cfg={},
            val_evaluator=Evaluator(Values()),
            test_evaluator=Evaluator(Values()),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.003)),
            custom_hooks=hooks,
            experiment_name=f"{request.node.name}-{len(made)}",
            log_level="ERROR",
            **kwargs,
        )
        made.append(out)
        return out

    return build


@pytest.fixture
def randomise_norms():
    def fill(model: nn.Module) -> None:
        noise = torch.Generator().manual_seed(0)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                for value in (module.weight, module.bias, module.running_mean):
                    value.data.uniform_(0.2, 1, generator=noise)
                module.running_var.uniform_(0.5, 2, generator=noise)

    return fill


HOOK = dict(type="mmvitaccel.DeployHook")


def test_test_is_folded_and_agrees(runner):
    plain, folded = runner([]).test(), runner([HOOK]).test()
    assert plain["values/norms"] > 0 and folded["values/norms"] == 0
    assert folded["values/outputs"] == pytest.approx(plain["values/outputs"], rel=1e-4, abs=1e-4)


def test_loaded_weights_are_the_ones_folded(runner, tmp_path):
    source = runner([])
    with torch.no_grad():
        for parameter in source.model.parameters():
            parameter.mul_(1.1)
    torch.save({"state_dict": source.model.state_dict()}, tmp_path / "weights.pth")
    expected = source.test()["values/outputs"]
    loaded = runner([HOOK], load_from=str(tmp_path / "weights.pth")).test()
    assert loaded["values/outputs"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert loaded["values/outputs"] != pytest.approx(runner([]).test()["values/outputs"], rel=1e-2)


def test_training_and_validation_are_left_alone(runner):
    out = runner([HOOK])
    out.train()
    assert out.message_hub.get_scalar("val/values/norms").current() > 0
    assert any(isinstance(m, _BatchNorm) for m in out.model.modules())


@pytest.mark.parametrize("update_buffers", [False, True])
def test_averaged_weights_are_folded_and_given_back(runner, update_buffers):
    ema = dict(type="EMAHook", momentum=0.5, update_buffers=update_buffers)
    trained = runner([ema])
    trained.train()
    # resumed, the model holds its own weights and EMAHook the averages
    resumed = dict(load_from=f"{trained.work_dir}/epoch_1.pth", resume=True)
    plain, folded = runner([ema], **resumed), runner([HOOK, ema], **resumed)
    expected, values = plain.test()["values/outputs"], folded.test()["values/outputs"]
    assert values == pytest.approx(expected, rel=1e-4, abs=1e-4)
    # after the test the model has its own weights again, now folded
    images = [Images()[i] for i in range(4)]
    with torch.no_grad():
        own = [value.item() for value in plain.model.eval()(images)]
        again = [value.item() for value in folded.model.eval()(images)]
    assert again == pytest.approx(own, rel=1e-4, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(own, expected)) > 1e-2


def test_nothing_to_fold_is_an_error(runner):
    message = r"no module of Regressor has switch_to_deploy\(\); leave out the hook or --deploy"
    with pytest.raises(ValueError, match=message):
        runner([HOOK], folds=False).test()


def test_outermost_modules_are_folded_once():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.inner = nn.Identity()

        def switch_to_deploy(self) -> None:
            self.calls += 1

    class Outer(Branch):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Branch()

    model = nn.ModuleDict(dict(wrapped=nn.ModuleDict(dict(module=Outer())), other=Branch()))
    assert fold_model(model) == ["wrapped.module", "other"]
    outer = model["wrapped"]["module"]
    assert (outer.calls, outer.inner.calls, model["other"].calls) == (1, 0, 1)
    assert fold_model(outer) == [""]
