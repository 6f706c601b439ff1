from __future__ import annotations

import warnings

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.runner.checkpoint import check_checkpoint, starting_point


class Net(nn.Module):
    def __init__(self, width=4, depth=2):
        super().__init__()
        self.backbone = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
        self.norm = nn.BatchNorm1d(width)


@pytest.fixture
def save(tmp_path):
    def save(weights):
        path = str(tmp_path / "checkpoint.pth")
        torch.save(weights, path)
        return path

    return save


def test_a_checkpoint_that_fits_is_loaded(save):
    trained, model = Net(), Net()
    path = save(dict(state_dict=trained.state_dict(), meta=dict(epoch=3)))
    assert check_checkpoint(model, path) == dict(epoch=3)
    assert all(map(torch.equal, model.state_dict().values(), trained.state_dict().values()))
    path = save({f"module.{k}": v for k, v in trained.state_dict().items()})
    assert check_checkpoint(model, path) == {}
    without = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    check_checkpoint(model, save(without | {"auxiliary.weight": torch.zeros(1)}))


def test_a_checkpoint_at_an_address_is_loaded_and_checked(monkeypatch):
    address, trained, model = "https://host/weights.pth", Net(), Net()
    there = {address: dict(state_dict=trained.state_dict(), meta=dict(epoch=3))}

    def load(filename, map_location):
        if filename not in there:
            raise OSError("no route to host")
        return there[filename]

    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", load)
    assert check_checkpoint(model, address) == dict(epoch=3)
    assert all(map(torch.equal, model.state_dict().values(), trained.state_dict().values()))
    with pytest.raises(UserError, match=r"weights\.pth: 'backbone\.0\.weight' is \(4, 4\) in it"):
        check_checkpoint(Net(width=5), address)
    with pytest.raises(UserError, match=r"gone\.pth: it could not be downloaded \(no route to"):
        check_checkpoint(model, "https://host/gone.pth")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Net(width=5), r"'backbone\.0\.weight' is \(5, 5\) in it and \(4, 4\) in Net; give"),
        (
            Net(depth=1),
            r"lacks 2 of the 8 tensors of Net, first 'backbone\.1\.weight'; .*another",
        ),
        (Net(depth=3), r"2 of its tensors are not in Net, first 'backbone\.2\.weight'; .*another"),
        (
            nn.Linear(2, 2),
            r"has no weights of Net, it has 'weight' as its first name; .*another",
        ),
    ],
)
def test_a_checkpoint_of_another_model(save, other, sentence):
    with pytest.raises(UserError, match=sentence):
        check_checkpoint(Net(), save(dict(state_dict=other.state_dict())))


def test_weights_of_a_training_that_diverged_are_a_warning(save):
    weights = Net().state_dict()
    weights["backbone.1.bias"][2] = torch.nan
    with pytest.warns(UserWarning, match=r"1 of its 9 tensors .*'backbone\.1\.bias'"):
        check_checkpoint(Net(), save(weights))


def test_weights_to_start_from_may_be_a_part(save):
    path = save(dict(state_dict=Net(depth=1).state_dict()))
    check_checkpoint(Net(), path, whole=False)
    with pytest.raises(UserError, match="holds none of"):
        check_checkpoint(Net(), save(nn.Linear(2, 2).state_dict()), whole=False)


def test_files_that_are_no_checkpoint(save, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
        check_checkpoint(Net(), "nowhere.pth")
    with pytest.raises(UserError, match="it contains no state dict, because 'epoch' is a int"):
        check_checkpoint(Net(), save(dict(epoch=3)))
    path = save(dict(state_dict=Net().state_dict()))
    whole = (tmp_path / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"checkpoint\.pth: .*cut short"):
        check_checkpoint(Net(), path)


def test_hooks_that_adapt_weights_are_run(save):
    class Resized(Net):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            key = f"{prefix}backbone.0.weight"
            state_dict[key] = state_dict[key][:4, :4]
            super()._load_from_state_dict(state_dict, prefix, *args)

    weights = Net().state_dict()
    weights["backbone.0.weight"] = torch.ones(6, 6)
    model = Resized()
    check_checkpoint(model, save(weights))
    assert torch.equal(model.backbone[0].weight, torch.ones(4, 4))


def test_infinite_weights_are_of_a_diverged_training(save):
    model = Net()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    weights["norm.running_var"][0] = float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_checkpoint(model, save(weights))  # a buffer may hold it
    weights["backbone.0.bias"][0] = -float("inf")
    with pytest.warns(
        UserWarning, match=r"1 of its \d+ tensors have NaN or infinity in them, first"
    ):
        check_checkpoint(model, save(weights))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.complex64, torch.bool])
def test_weights_that_are_no_real_numbers(save, dtype):
    weights = {k: v.to(dtype) if "0." in k else v for k, v in Net().state_dict().items()}
    sentence = rf"'backbone\.0\.weight' is {str(dtype)[6:]} in it and float32 in the model: these"
    with pytest.raises(UserError, match=sentence):
        check_checkpoint(Net(), save(weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(save, dtype):
    weights = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in Net().state_dict().items()
    }
    check_checkpoint(model := Net(), save(weights))
    assert model.backbone[0].weight.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_quantized_weights_are_named(save):
    weights = {"w.weight": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}
    with pytest.raises(UserError, match=r"'w\.weight' is a quantized tensor"):
        check_checkpoint(Net(), save(weights))


def test_where_a_training_starts():
    assert starting_point(Config(dict(load_from="a.pth", resume=True))) == "a.pth"
    with pytest.raises(UserError, match=r"^load_from is 5; give the path of a checkpoint, or None"):
        starting_point(Config(dict(load_from=5)))
    with pytest.raises(
        UserError, match=r"^resume is the text 'a\.pth'; .*load_from='a\.pth', or --r"
    ):
        starting_point(Config(dict(resume="a.pth")))
